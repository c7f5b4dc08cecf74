"""One model request from its plan to its end: `plan.py` says what it asks for, `attempt.py` what one engine is sent for
it, `dispatch.py` tries the targets, `client_stream.py` and `collect.py` bring the response back, `accounting.py` counts
and logs it once.

May import: app.dialects, app.errors, app.metrics, app.relay, app.routing, app.table, backends.endpoint,
backends.engine_profile, backends.errors, backends.http.exchange, backends.http.pool, backends.ollama.exchange,
backends.ollama.failures, backends.ollama.request, backends.ollama.response, backends.prompt_too_long,
backends.redaction.
"""
