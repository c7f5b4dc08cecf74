"""Entries of the configuration that are several engines: replicas, addresses that are discovered, and what is done to
them in turn (`pending_change.py` and `rolling_update.py`: a new configuration; `adapters.py` and `adapter_orders.py`).

May import: app.config, app.ipc, app.supervisor.admin.status_text, app.supervisor.file_stamp, app.supervisor.fleet,
backends.endpoint, backends.engine, backends.errors, backends.config, backends.lifecycle, backends.remote.config.
"""
