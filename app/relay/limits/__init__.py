"""What one relay may spend of clients' limits, spent in its own memory: `allowances.py` has them for all keys,
`key_allowance.py` is that of one (`allowance_totals.py` its sums, `known_refusals.py` what was refused last),
`reservation.py` what one request holds of it, and `prepaid.py` many small ones; `refusals.py` and `limit_headers.py`
say it to clients (pure). The supervisor grants, and is told what was spent; a request never leaves the process for it
unless the allowance is used up.

May import: app.dialects.usage, app.dialects.validation.messages, app.errors, app.ipc, app.relay.planning, app.table,
backends.errors, backends.http.carrying.
"""
