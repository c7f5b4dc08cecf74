"""An OpenAI-compatible server that somebody else runs: it is only asked whether it is there and what it serves.

May import: backends.
"""
