"""OpenAI's `/v1/responses`: `request.py` turns a request with its items and tools into a chat, `response.py` writes
what engines answer as output items and their events.

May import: app.dialects, app.errors, backends.http.delta, backends.texts.
"""
