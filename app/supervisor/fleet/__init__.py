"""All engines' lives: `event_loop.py` is the one place where a life changes, `unit.py` does what the life decides,
`waiters.py` and `admission.py` hold the requests that wait.

May import: app.supervisor, app.table, backends.
"""
