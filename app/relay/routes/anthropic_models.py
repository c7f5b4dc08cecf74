"""The list of models as Anthropic's clients read it, page by page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from app.errors import bad_request

# The header that Anthropic's clients send with every request.
MARK: Final = "anthropic-version"
MOST: Final = 1000
# Members of OpenAI's entry that Anthropic's has otherwise; `capabilities` has another shape there.
_REPLACED: Final = frozenset({"id", "object", "created", "capabilities"})


def as_anthropic(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of `/v1/models` with Anthropic's members, and ours behind them."""
    created = datetime.fromtimestamp(entry["created"], UTC).isoformat().replace("+00:00", "Z")
    theirs = {"type": "model", "id": entry["id"], "display_name": entry["id"], "created_at": created}
    length = entry["context_length"]
    limit = {"max_input_tokens": length} if length is not None else {}
    return {**theirs, **limit, **{name: value for name, value in entry.items() if name not in _REPLACED}}


def page(entries: Sequence[Mapping[str, Any]], query: str) -> dict[str, Any]:
    """The part of the list that a query's `limit`, `after_id` and `before_id` ask for; without `limit` the first MOST.

    Problem (400) for a limit out of bounds and for the name of a model that is not in the list.
    """
    asked = dict(parse_qsl(query))
    names = [entry["id"] for entry in entries]
    limit = asked.get("limit", str(MOST))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4 and 1 <= int(limit) <= MOST):
        raise bad_request(f"'limit' must be a number from 1 to {MOST}.", param="limit")
    start, end = 0, len(names)
    for name, is_after in (("after_id", True), ("before_id", False)):
        if name in asked:
            if asked[name] not in names:
                raise bad_request(f"'{name}' must be the id of a model in this list.", param=name)
            at = names.index(asked[name])
            start, end = (at + 1, end) if is_after else (start, at)
    is_backward = "before_id" in asked and "after_id" not in asked
    if is_backward:
        start, has_more = max(start, end - int(limit)), end - start > int(limit)
    else:
        has_more = end - start > int(limit)
        end = min(end, start + int(limit))
    shown = [as_anthropic(entry) for entry in entries[start:end]]
    ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return {"data": shown, "has_more": has_more, **ends}
