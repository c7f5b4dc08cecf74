"""What an administrator may ask and order about keys, usage and the audit, which all gateways of a team share.

May import: app.config.team, app.errors, app.store, app.supervisor, app.table, app.usage.
"""
