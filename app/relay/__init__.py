"""The data path: a relay is a process that serves clients on the listening socket it inherits. `server.py` is its
start, `supervisor_client.py` its connection to the supervisor; nothing here starts or watches a process.

May import: app.ipc, app.log, app.log_format, app.metrics, app.relay, app.shared_counters, app.table, app.usage,
backends.endpoint, backends.errors, backends.http.
"""
