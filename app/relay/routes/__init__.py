"""Which route a request is for and who may use it, the lists of models in every dialect, and what is forwarded to the
supervisor. `routes.py` is the table of all routes, `openai_models.py` makes an entry of `/v1/models`.

May import: app.dialects, app.errors, app.keys, app.metrics, app.relay, app.routing, app.table, backends.endpoint,
backends.errors, backends.http.pool, backends.texts.
"""
