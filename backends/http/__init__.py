"""The connection to an engine: `pool.py`, `exchange.py` and `connection.py` are our HTTP/1.1 client for requests, which
`carrying.py` runs without a task; `probe_client.py` asks short questions beside them, and `delta.py` is what a
translated response says, piece by piece.

May import: backends.endpoint, backends.errors, backends.redaction.
"""
