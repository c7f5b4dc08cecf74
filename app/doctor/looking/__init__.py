"""Looking at the machine: reads, asks and tries, each with an end; nothing is changed.

May import: app.config, app.doctor.facts, app.supervisor, backends.config.base, backends.errors, backends.huggingface,
backends.inspection, backends.kinds, backends.toolenv.
"""
