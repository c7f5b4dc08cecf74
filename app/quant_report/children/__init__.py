"""Scripts that run in processes of their own, by path: they import nothing of ours. JSON in, JSON lines out.

May import: nothing.
"""
