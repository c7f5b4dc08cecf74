"""How likely a text is for the embedded engine's model, token by token, which llama.cpp's server does not tell.
`library.py` is llama.cpp's own library (llama.h), `token_scores.py` what it says of a prompt, `child.py` the process
that tells it over HTTP, `door.py` the thread in the engine's process that starts it when it is wanted.

May import: backends.
"""
