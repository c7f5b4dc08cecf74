"""One HTTP request at the data listener: reading its head and body within bounds and deadlines, checking its origin,
and writing the response straight to the connection.

May import: app.dialects.client_api, app.dialects.json_members, app.dialects.parameters, app.errors, app.table,
backends.engine_profile, backends.http.carrying.
"""
