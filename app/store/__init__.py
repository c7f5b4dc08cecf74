"""The store: what outlives a gateway and is shared by several. Keys, limits, usage, audit, votes, the gateways
themselves; in SQLite or PostgreSQL. `database.py` is the port that everything else here is written against.

May import: app.store.tables.
"""
