"""What Prometheus reads: `relay_counters.py` adds up what all relays have counted, `page.py` renders `/metrics`, with
the backends (`backend_series.py`), the processes and the GPUs (`machine_series.py`) and what holds of each model
(`model_series.py`).

May import: app.certificate, app.metrics, app.routing, app.shared_counters, app.supervisor, app.table, backends.
"""
