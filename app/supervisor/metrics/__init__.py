"""What Prometheus reads: `relay_counters.py` adds up what all relays have counted, `page.py` renders `/metrics` with it
and what a `snapshot.py` of the gateway says of backends, models, processes and GPUs; `pages.py` serves both pages.

May import: app.certificate, app.errors, app.metrics, app.routing, app.shared_counters, app.supervisor, app.table,
backends.
"""
