"""What clients are told of a model here: an entry of `/v1/models`. Pure."""

from __future__ import annotations

from app.table import Serving, Table
from backends.endpoint import State

UNVERIFIED = "unverified"


def entry(table: Table, name: str, backend: str) -> dict[str, object]:
    """An entry for a name that this backend serves: OpenAI's four members and ours; what is not known is null."""
    row = table.backends.get(backend)
    state = row.state if row is not None else State.STOPPED
    model = table.models.get(name)
    engine_name = _engine_name(table, name, backend)
    facts = row.fact(engine_name) if row is not None else None
    if row is not None and row.profile.is_daemon and state is State.READY and facts and not facts.is_loaded:
        state = State.SLEEPING  # its daemon serves it, and loads it first
    length = facts.context_length if facts is not None else None
    parent = {"parent": model.parent} if model is not None and model.parent is not None else {}
    known = {"parity": model.parity} if model is not None and model.parity is not None else {}
    return {
        "id": name,
        "object": "model",
        "created": table.created,
        "owned_by": row.kind if row is not None else "modelport",
        "state": str(state),
        "backend": backend,
        "context_length": length,
        "max_model_len": length,
        "quantization": facts.quantization if facts is not None else None,
        "serving": shown(row.serving(engine_name)) if row is not None else None,
        "capabilities": facts.capabilities if facts is not None else {},
        **parent,
        **known,
    }


def shown(serving: Serving | None) -> str | None:
    """The digest of a serving, or that it is not known any more; None while it is not known yet."""
    return (serving.digest or UNVERIFIED) if serving is not None else None


def _engine_name(table: Table, name: str, backend: str) -> str:
    model = table.models.get(name)
    if model is not None:
        return next((target.model for target in model.targets if target.backend == backend), name)
    prefixes = [each.prefix for each in table.wildcards if each.backend == backend and name.startswith(each.prefix)]
    return name.removeprefix(max(prefixes, key=len, default=""))
