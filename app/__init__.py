"""What a client and an operator see: the command line, the configuration, the supervisor and the relays. The files here
are what both processes know: the table, errors, keys, routing, metrics, the log.

May import: app.cli, app.dialects, backends.endpoint, backends.engine_profile, backends.errors, backends.kinds,
backends.ollama.names, backends.prompt_too_long.
"""

__version__ = "0.2.0"
