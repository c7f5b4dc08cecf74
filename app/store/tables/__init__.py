"""What is kept in the store of a team's audit, votes and comparisons: a file for each, over any database.

May import: app.store.database.
"""
