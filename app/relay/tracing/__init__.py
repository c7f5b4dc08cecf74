"""Traces of model requests, in OpenTelemetry's words and without its packages: what is noted while a request runs
(`traced_record.py`), the spans that are made of it at its end (`spans.py`), and how they reach a collector
(`otlp.py`, `exporter.py`, `collector.py`). Nothing here is called where traces are off.

May import: app.dialects.usage, app.metrics, app.relay.http.request, app.relay.planning.plan,
app.relay.proxy.accounting, app.table, app.usage.segments, backends.endpoint, backends.http.exchange.
"""
