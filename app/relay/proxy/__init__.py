"""One model request from its plan to its end: `dispatch.py` tries the targets, `asker.py` asks the engine of one of
them, `client_stream.py` and `collect.py` bring the response back, `accounting.py` counts and logs it once.

May import: app.dialects, app.errors, app.metrics, app.relay, app.table, app.usage, backends.endpoint, backends.errors,
backends.http.carrying, backends.http.exchange, backends.http.pool, backends.prompt_too_long, backends.redaction.
"""
