"""What one model request asks for, and what one engine is sent for it: `plan.py` reads the request, whichever engine
gets it; `attempt.py` and `engine_call.py` make of it what a certain engine takes. Pure: nothing here waits or sends.

May import: app.dialects, app.errors, app.ipc, app.relay.http, app.routing, app.table, backends.endpoint,
backends.engine_profile, backends.errors, backends.http.exchange, backends.ollama.exchange, backends.ollama.failures,
backends.ollama.request, backends.ollama.response, backends.prompt_too_long.
"""
