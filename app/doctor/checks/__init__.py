"""The checks: pure functions of what the doctor sees. Each has its heading in docs/doctor.md.

May import: app.config.cross_checks, app.config.settings, app.doctor.diagnosis, app.doctor.facts, app.store.checkup,
app.store.schema, app.supervisor.capacity.forecast, app.supervisor.open_files, backends.huggingface.cache,
backends.inspection, backends.process.process, backends.toolenv.tools.
"""
