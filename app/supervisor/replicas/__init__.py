"""Entries of the configuration that are several engines: replicas, addresses that are discovered, and what is done to
them in turn (`pending_change.py` and `rolling_update.py`: a new configuration; `adapters.py` and `adapter_orders.py`).

May import: app.config, app.ipc, app.supervisor.file_stamp, app.supervisor.fleet, app.supervisor.status_text,
backends.config, backends.endpoint, backends.engine, backends.errors, backends.lifecycle,
backends.model_files.
"""
