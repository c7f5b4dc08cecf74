"""An Ollama daemon, somebody else's or ours: `engine.py` asks it, `request.py`, `response.py` and `stream.py` translate
between OpenAI's API and the daemon's own.

May import: backends.
"""
