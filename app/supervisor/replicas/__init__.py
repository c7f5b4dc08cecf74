"""Entries of the configuration that are several engines: replicas, addresses that are discovered, and what is done to
them in turn (a new configuration, adapters).

May import: app.config, app.ipc, app.supervisor.fleet, backends.endpoint, backends.errors, backends.config,
backends.remote.config.
"""
