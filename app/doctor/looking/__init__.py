"""Looking at the machine: reads, asks and tries, each with an end; nothing is changed.

May import: app.config, app.doctor.facts, app.store, app.supervisor, app.usage, backends.config.base, backends.errors,
backends.huggingface, backends.inspection, backends.kinds, backends.toolenv.
"""
