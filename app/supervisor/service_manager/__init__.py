"""What a service manager is told (systemd, `Type=notify`): that the gateway is ready, how it is, that it ends.

May import: app.config.model, app.supervisor.fleet.status, backends.endpoint.
"""
