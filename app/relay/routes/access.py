"""Who may use a route: the one place where keys and roles are checked (app/relay/routes/application.py asks it)."""

from __future__ import annotations

import time

from app.errors import forbidden, keys_unavailable, unauthorized
from app.keys import find
from app.relay.http.request import Request
from app.relay.routes.route import Access
from app.table import Key


def check(request: Request, access: Access) -> None:
    """Give the request its `key`; where the access is open it gets none, so that no handler can rely on it.

    Problem (401) where keys are configured and it presents no valid one, or (503) where that cannot be known; Problem
    (403) for a key without that role, and where other machines can reach an administrator's route for which no key is
    configured.
    """
    if access is Access.OPEN:
        return
    key = _valid_key(request)
    if access is Access.ADMIN:
        if key is not None and key.role != "admin":
            raise forbidden("This needs a key of role 'admin'.")
        if key is None and not request.table.is_loopback:
            raise forbidden("Other machines can reach this gateway, and there is no key that could open this.")
    request.key = request.response.key = key


def _valid_key(request: Request) -> Key | None:
    table = request.table
    if table.is_open:
        return None
    key = find(request.presented_key(), table.keys, time.time())
    if key is None:
        if table.keys_missing is not None:
            raise keys_unavailable(f"This API key cannot be checked now: {table.keys_missing}.")
        raise unauthorized("This API key is not known here, or it has expired.")
    return key
