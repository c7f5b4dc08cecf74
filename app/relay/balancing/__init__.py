"""Which of several engines gets a request, beyond what the table says: what this relay remembers of prompts, of
engines that fail, and of what is tried again.

May import: app.ipc, app.relay.http.json_body, app.relay.planning.plan, app.routing, app.shared_counters, app.table,
backends.endpoint.
"""
