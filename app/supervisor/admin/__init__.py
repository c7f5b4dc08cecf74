"""What an administrator may ask and order: the FastAPI application on `control.sock`, its schemas and views,
`/openapi.json`, and what models can do and how they are served, by asking them.

May import: app.certificate, app.config, app.errors, app.keys, app.routing, app.store,
app.supervisor, app.table, backends.
"""
