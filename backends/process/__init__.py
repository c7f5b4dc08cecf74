"""The processes that we start: each engine behind a guard that ends it with the supervisor. What they print, take and
leave behind, whether they still work, and why they ended.

May import: backends.engine.
"""
