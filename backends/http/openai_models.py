"""Lists of models (`GET /v1/models`) as engines send them, read defensively: any member may be missing or of another
type. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

# The capabilities of every engine that writes text; words of backends.endpoint.CAPABILITIES.
OF_TEXT: Final = ("chat", "completion", "json_schema", "logprobs")


def entries_of(listed: Any) -> Iterable[Mapping[str, Any]]:
    """The entries of a list of models that are objects with an `id`; empty where `listed` is not such a list."""
    entries = listed.get("data") if isinstance(listed, dict) else None
    return [each for each in entries if isinstance(each, dict) and "id" in each] if isinstance(entries, list) else []


def positive(value: Any) -> int | None:
    """The value, where it is a whole number above 0; else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def member(value: Any, *names: str) -> Any:
    """The member at that path (`names`, outermost first) of an object decoded from JSON; None where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def model_ids(listed: Any) -> tuple[str, ...] | None:
    """The names in an OpenAI list of models; None when `listed` is not one."""
    try:
        return tuple(str(entry["id"]) for entry in listed["data"])
    except (KeyError, TypeError):
        return None
