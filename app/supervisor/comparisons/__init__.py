"""What is kept of comparisons: votes about blind ones and their tally, and the runs in the state folder, which the
command line writes. `comparison_routes.py` has the routes.

May import: app.errors, app.ipc, app.routing, app.statistics, app.store, app.table.
"""
