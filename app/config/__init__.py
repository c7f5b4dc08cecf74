"""What an operator writes: `modelport.yaml`, environment variables and flags, checked as a whole and turned into
values. Every mistake is reported at once, with its place in the file.

May import: app.dialects.reasoning, app.keys, app.log_format, app.store.postgresql_url, app.table, backends.config,
backends.kinds, backends.remote.config.
"""
