"""vLLM's server, started by us in an environment of its own: its arguments, its metrics, its failures in words.

May import: backends.
"""
