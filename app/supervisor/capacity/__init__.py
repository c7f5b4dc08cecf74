"""Which engine runs where on this machine: sizes, devices, placement, eviction, and the scheduler that applies them.
`placement.py`, `eviction.py`, `schedule.py` and `forecast.py` are pure.

May import: app.config, app.supervisor.admin.plan_schemas, app.supervisor.fleet.unit, app.supervisor.json_store,
app.supervisor.replicas, app.supervisor.status_text, backends.
"""
