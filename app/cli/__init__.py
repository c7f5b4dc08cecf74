"""The command line: one file for each verb of `modelport`, loaded when it is called. Verbs talk to a running gateway
through `admin_client.py` and read the configuration as a start would.

May import: app, backends.
"""
