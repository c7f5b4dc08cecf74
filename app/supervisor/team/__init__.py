"""What gateways of a team share: the store as this gateway sees it, and what is kept in it. `team.py` puts the parts
together; each is a member of `Team` that lives as long as the supervisor. No request waits for any of it.

May import: app.config, app.keys, app.store, app.supervisor.admin.schemas, app.supervisor.comparisons,
app.supervisor.json_store,
app.supervisor.metrics.bucket_counts, app.supervisor.metrics.team_series, app.supervisor.state_folder,
app.supervisor.team.limits, app.supervisor.team.usage.collector, app.table, app.usage.segments.
"""
