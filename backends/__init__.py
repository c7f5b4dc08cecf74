"""How one engine is run and spoken to, one folder for each kind; a new kind is one folder and one line in `kinds.py`.
The files here are what all kinds share; nothing here knows of clients' keys, users or routes.

May import: backends.
"""
