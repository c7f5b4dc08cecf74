"""What becomes of each parameter of a request on each kind of engine: passed, adjusted, dropped and named, or refused.
`table.py` is the data, `adjust.py` and `judge.py` apply it.

May import: app.dialects, app.errors, app.table, backends.endpoint, backends.engine_profile, backends.errors,
backends.kinds.
"""
