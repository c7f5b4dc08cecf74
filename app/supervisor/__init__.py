"""The process that owns every engine's life, the configuration and the state folder, and carries no client's traffic.
`gateway.py` puts its parts together: fleet, capacity, replicas, relays, admin.

May import: app.certificate, app.config, app.errors, app.log, app.running_gateway, app.store,
app.supervisor, app.table, backends.endpoint, backends.engine, backends.kinds,
backends.lifecycle.phases, backends.process.
"""
