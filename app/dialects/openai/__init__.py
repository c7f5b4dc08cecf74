"""OpenAI's responses as engines send them: read, checked, normalized and passed on, whole or event by event.
`fast_path.py` lets events through undecoded that differ from a known one in their text only.

May import: app.dialects, app.errors, backends.errors, backends.finish_reasons, backends.http.delta,
backends.prompt_too_long.
"""
