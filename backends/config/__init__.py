"""What an operator writes under `backends:`, as far as all kinds share it. Each kind's own settings are in the kind's
folder.

May import: backends.endpoint, backends.engine.
"""
