"""Anthropic's `/v1/messages`: `request.py` turns a request into an OpenAI chat, `response.py` writes what engines
answer as Anthropic's messages and events.

May import: app.dialects, app.errors, backends.finish_reasons, backends.http.delta, backends.prompt_too_long,
backends.texts.
"""
