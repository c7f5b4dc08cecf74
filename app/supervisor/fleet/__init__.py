"""All engines' lives: `event_loop.py` lets events happen to them, in one place; `unit.py` is one backend with what is
known of it, `runner.py` does what its life decides; `waiters.py` and `admission.py` hold the requests that wait.

May import: app.supervisor, app.table, backends.
"""
