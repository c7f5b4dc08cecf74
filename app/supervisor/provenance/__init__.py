"""What answers are made from: `servings.py` says it of one start of an engine, `provenance.py` reads the files in the
background and completes the table.

May import: app.supervisor.fleet.status, app.supervisor.json_store, app.table, backends.kinds, backends.model_files.
"""
