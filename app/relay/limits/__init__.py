"""What one relay may spend of clients' limits, spent in its own memory: `allowances.py` has them for all keys,
`key_allowance.py` is that of one, `reservation.py` what one request holds of it; `refusals.py` and `limit_headers.py`
say it to clients (pure). The supervisor grants, and is told what was spent; a request never leaves the process for it
unless the allowance is used up.

May import: app.errors, app.ipc, app.relay.planning, app.table, app.dialects.usage, backends.errors,
backends.http.carrying.
"""
