"""One question to several models side by side: `ask.py` reads it, `sampling.py` and `fitness.py` say what is the same
for all and what is not (pure), `answer.py` is one of the answers, `comparison_events.py` how they reach the client,
`comparer.py` asks; `compare_api.py` has the routes, votes and runs among them, which the supervisor keeps.

May import: app.dialects, app.errors, app.ipc, app.relay, app.routing, app.table, backends.errors,
backends.http.delta.
"""
