"""What Ollama's clients get to know of the models here, and of the daemon that they take us for. Pure.

Most of what Ollama says of a model's file is not known here and left empty. Made up is what clients fail without: the
digest, and a context length where none is known.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from app.routing import Resolved, resolve
from app.table import Backend, Table
from backends.endpoint import FAILED, ModelFacts, State

# The version whose API this is: clients ask for it before they use what is new, or what had security holes once.
OLLAMA_VERSION = "0.35.0"
# The context length that is given where none is known; VS Code assumes as much where none is given.
UNKNOWN_LENGTH = 32768
# Ollama's word for what a model can do → ours.
_ABILITIES = {
    "completion": ("chat", "completion"),
    "embedding": ("embedding",),
    "tools": ("tools",),
    "vision": ("vision",),
    "thinking": ("reasoning",),
}
_FOREVER = "2318-01-01T00:00:00Z"  # Ollama's time for a model that is never unloaded


def entry(table: Table, name: str) -> dict[str, Any]:
    """An entry of `/api/tags`."""
    return {
        "name": name,
        "model": name,
        "modified_at": _time(table.created),
        "size": _size(table, name),
        "digest": hashlib.sha256(name.encode()).hexdigest(),
        "details": _details(table, name),
        "capabilities": _abilities(table, name),
    }


def running(table: Table, name: str) -> dict[str, Any]:
    """An entry of `/api/ps`."""
    listed = entry(table, name)
    del listed["modified_at"], listed["capabilities"]
    facts = _facts(table, name)
    length = {"context_length": tokens} if (tokens := _length(facts)) is not None else {}
    size = facts.memory_bytes if facts is not None else 0
    until = (facts.expires_at if facts is not None else None) or _FOREVER
    return {**listed, "size": size, "expires_at": until, "size_vram": 0, **length}


def runs(table: Table, name: str, backend: str) -> bool:
    """Whether the model's engine serves now; a daemon's model only while it is loaded."""
    row = table.backends.get(backend)
    facts = _facts(table, name)
    is_loaded = facts is None or facts.is_loaded or (row is not None and not row.profile.is_daemon)
    return row is not None and row.state is State.READY and is_loaded


def _backend(table: Table, name: str) -> tuple[Backend | None, ModelFacts | None]:
    """The backend that is asked for the model first, and what it has reported of it."""
    resolved = resolve(table, name)
    if resolved is None or not resolved.model.targets:
        return None, None
    target = resolved.model.targets[0]
    backend = table.backends.get(target.backend)
    return backend, backend.fact(target.model) if backend is not None else None


def _facts(table: Table, name: str) -> ModelFacts | None:
    return _backend(table, name)[1]


def _size(table: Table, name: str) -> int:
    facts = _facts(table, name)
    return facts.size_bytes if facts is not None else 0


def _length(facts: ModelFacts | None) -> int | None:
    return facts.num_ctx or facts.context_length if facts is not None else None


def _abilities(table: Table, name: str) -> list[str]:
    """A daemon's own words, or ours translated to them; `completion` for a model of which nothing is known."""
    facts = _facts(table, name)
    if facts is not None and facts.abilities is not None:
        return list(facts.abilities)
    known = {each for each, result in facts.capabilities.items() if result != FAILED} if facts is not None else set()
    return [word for word, ours in _ABILITIES.items() if known.intersection(ours)] or ["completion"]


def show_response(table: Table, resolved: Resolved) -> dict[str, Any]:
    """The answer of `/api/show`."""
    facts = _facts(table, resolved.name)
    family = (facts.architecture if facts is not None else None) or "unknown"
    length = _length(facts) or UNKNOWN_LENGTH
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": _details(table, resolved.name),
        "model_info": {
            "general.architecture": family,
            "general.basename": resolved.name,
            "general.context_length": length,
            f"{family}.context_length": length,
        },
        "modified_at": _time(table.created),
        "capabilities": _abilities(table, resolved.name),
    }


def _details(table: Table, name: str) -> dict[str, Any]:
    model = table.models.get(name)
    parent = model.parent if model is not None else None
    backend, facts = _backend(table, name)
    family = facts.architecture if facts is not None else None
    return {
        "parent_model": parent or "",
        "format": backend.profile.weights if backend is not None else "",
        "family": family or "",
        "families": [family] if family else [],
        "parameter_size": "",
        "quantization_level": (facts.quantization if facts is not None else None) or "",
    }


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
