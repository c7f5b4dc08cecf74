"""The supervisor's side of the relays: starting and replacing them, publishing the table, counting their leases.
`build_table.py` makes the table of the configuration and the backends' situations.

May import: app.config, app.ipc, app.supervisor, app.table, backends.endpoint, backends.engine_profile, backends.errors,
backends.lifecycle.
"""
