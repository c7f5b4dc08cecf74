"""Anthropic's `/v1/messages`: `request.py` turns a request into an OpenAI chat, `response.py` turns OpenAI's response
into Anthropic's.

May import: app.dialects, app.errors, app.table, backends.finish_reasons, backends.http.exchange,
backends.prompt_too_long, backends.texts.
"""
