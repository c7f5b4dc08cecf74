"""What an administrator may ask and order: the FastAPI application on `control.sock`, its schemas and views,
`/metrics`, `/openapi.json`, and the tests of what models can do.

May import: app.config, app.errors, app.routing, app.shared_counters, app.supervisor, app.table, backends.
"""
