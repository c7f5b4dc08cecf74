"""Usage records on their way from the relays' segments to the store: `collector.py` brings them in, by way of
`journal.py` where the store is a server that may be away.

May import: app.config.team, app.store.database, app.store.tables.usage, app.supervisor.metrics.team_series,
app.supervisor.team.team_store, app.usage.
"""
