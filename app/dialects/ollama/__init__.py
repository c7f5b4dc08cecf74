"""Ollama's API as clients use it: `request.py` turns a request into OpenAI's, `response.py` writes what engines
answer as Ollama's lines and objects. How an Ollama daemon is spoken to as an engine is in `backends/ollama`.

May import: app.dialects, app.errors, backends.finish_reasons, backends.http.delta.
"""
