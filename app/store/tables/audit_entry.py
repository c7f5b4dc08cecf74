"""One order of somebody, as the audit keeps it. What it does not say: prompts, answers, keys."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

# By what an order came: a client's request, one from the page at `/`, one over `control.sock`, a command that worked
# without a gateway, a signal to the supervisor.
Via = Literal["http", "page", "socket", "command", "signal"]
# Who gave an order where no key is configured: whoever reaches the gateway may.
ANYBODY: Final = "anybody"
# What of an order is kept: what these fields say, and nothing else, so that no field of tomorrow carries a secret here.
DETAILS: Final = (
    *("name", "new_name", "team", "role", "models", "expires", "days", "priority", "rpm", "tpm", "max_parallel"),
    *("budget", "grace", "grace_s", "path", "proof", "adapter", "capability", "again", "model", "winner", "to", "rows"),
)
MOST_CHARS: Final = 200
MOST_ITEMS: Final = 20


class AuditEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who did what, on what, and how it ended. `at`: Unix seconds. `action`: as `backends.stop`; `target`: the name of
    what it was done to. `status`: of the answer, as HTTP has it; 0: nobody knows how it ended. `gateway`: where it was
    done. `address`: of the client's connection, a proxy's where there is one between.
    """

    id: str
    at: float
    actor: str
    via: Via
    action: str
    target: str = ""
    status: int = 200
    details: dict[str, Any] = {}
    gateway: str = ""
    request_id: str = ""
    address: str = ""

    @property
    def is_done(self) -> bool:
        """Whether the order was carried out."""
        return 200 <= self.status < 300


def new_id() -> str:
    """One that no other entry has."""
    return secrets.token_hex(12)


def details(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit keeps of an order's fields, shortened where it is long; None: taken away, as a limit is. Pure."""
    return {name: _short(fields[name]) for name in DETAILS if name in fields}


def _short(value: Any) -> Any:
    match value:
        case bool() | int() | float():
            return value
        case str():
            return value if len(value) <= MOST_CHARS else f"{value[:MOST_CHARS]}…"
        case list():
            return [_short(each) for each in value[:MOST_ITEMS]] + (["…"] if len(value) > MOST_ITEMS else [])
        case dict():
            return {str(name)[:MOST_CHARS]: _flat(each) for name, each in list(value.items())[:MOST_ITEMS]}
        case _:
            return None


def _flat(value: Any) -> Any:
    return value if isinstance(value, bool | int | float) else str(value)[:MOST_CHARS]
