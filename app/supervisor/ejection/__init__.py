"""Targets that are passed over for what they did to requests: `ejections.py` decides, `trial.py` asks an engine whether
it is well.

May import: app.ipc, app.supervisor.fleet.status, app.table, backends.endpoint, backends.errors,
backends.http.probe_client.
"""
