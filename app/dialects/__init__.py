"""What clients and engines say to each other, as pure functions on bytes and values: nothing here waits, opens or sends
anything. The files here are shared by the dialects; each dialect has a folder.

May import: app.dialects, app.errors, backends.endpoint, backends.engine_profile, backends.errors,
backends.finish_reasons, backends.http.delta, backends.http.exchange, backends.prompt_too_long.
"""
