"""The embedded engine: llama.cpp's server in a child process, with one GGUF file. `engine.py` runs and asks it,
`child.py` is the process.

May import: backends.
"""
