"""Scripts that run in tool environments, started by path: a request on standard input, JSON lines on standard output
(backends/toolenv/child.py). They know nothing of this program and import nothing of it.

May import: nothing.
"""
