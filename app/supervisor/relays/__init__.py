"""The supervisor's side of the relays: starting and replacing them, publishing the table, counting their leases.
`build_table.py` makes the table of the configuration and the backends' situations.

May import: app.config, app.ipc, app.keys, app.shared_counters, app.supervisor.metrics.relay_counters,
app.supervisor.replicas, app.supervisor.state_folder, app.supervisor.status_text, app.table, backends.endpoint,
backends.engine_profile, backends.lifecycle.
"""
