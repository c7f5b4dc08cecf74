"""All engines' lives: `event_loop.py` lets events happen to them, in one place; `unit.py` is one backend with what is
known of it, `runner.py` does what its life decides; `waiters.py` holds the requests that wait for it.

May import: app.ipc, app.supervisor.admission, app.supervisor.capacity, app.supervisor.ejection.ejected_model,
app.supervisor.file_stamp, app.supervisor.metrics.bucket_counts, app.supervisor.relays.table_rows,
app.supervisor.replicas, app.table, backends.
"""
