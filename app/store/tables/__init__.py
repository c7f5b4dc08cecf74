"""What is kept in the store: a file for each group of tables, over any database.

May import: app.store.database, app.table, app.usage.periods, app.usage.record.
"""
