"""What Ollama's clients are told of the models here: lists, details, the daemon itself. Pure.

Most of what Ollama tells of a file is not known here and left empty. Made up is what clients fail without: the digest,
and a context length where nobody has said one.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from app.routing import Resolved, resolve
from app.table import Backend, Table
from backends.endpoint import FAILED, ModelFacts, State

# Whose API this is: clients ask for it before they use what is new, and look up whether it has known holes.
OLLAMA_VERSION = "0.35.0"
# The context that is told of a model of which nobody knows it; VS Code assumes as much where none is told.
UNKNOWN_LENGTH = 32768
# Ollama's words for what a model can do, and ours.
_ABILITIES = {
    "completion": ("chat", "completion"),
    "embedding": ("embedding",),
    "tools": ("tools",),
    "vision": ("vision",),
    "thinking": ("reasoning",),
}
_FOREVER = "2318-01-01T00:00:00Z"  # what Ollama says of a model that stays
PAGE_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'", "vary": "accept"}
PAGE = (
    b'<!doctype html><html lang="en"><meta charset="utf-8"><title>Modelport</title>'
    b"<style>body{font:16px sans-serif;margin:2rem}</style><h1>Modelport is running</h1>"
    b"<p>This is an API, not a page. OpenAI's is under <code>/v1</code>, Ollama's under <code>/api</code>.</p>"
    b'<p><a href="v1/models">The models</a>, <a href="openapi.json">the routes</a></p></html>'
)


def entry(table: Table, name: str) -> dict[str, Any]:
    """One of `/api/tags`."""
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
    """One of `/api/ps`."""
    told = entry(table, name)
    del told["modified_at"], told["capabilities"]
    facts = _facts(table, name)
    known = _length(facts)
    length = {"context_length": known} if known is not None else {}
    size = facts.memory_bytes if facts is not None else 0
    until = (facts.expires_at if facts is not None else None) or _FOREVER
    return {**told, "size": size, "expires_at": until, "size_vram": 0, **length}


def runs(table: Table, name: str, backend: str) -> bool:
    """Whether its engine serves now; a daemon's model only while it is loaded."""
    found = table.backends.get(backend)
    facts = _facts(table, name)
    is_there = facts is None or facts.is_loaded or (found is not None and not found.profile.is_daemon)
    return found is not None and found.state is State.READY and is_there


def _backend(table: Table, name: str) -> tuple[Backend | None, ModelFacts | None]:
    """Who serves it first, and what is known of it."""
    found = resolve(table, name)
    if found is None or not found.model.targets:
        return None, None
    target = found.model.targets[0]
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
    """A daemon's own words, or ours in them; a model of which nothing is known writes."""
    facts = _facts(table, name)
    if facts is not None and facts.abilities is not None:
        return list(facts.abilities)
    known = {each for each, said in facts.capabilities.items() if said != FAILED} if facts is not None else set()
    return [word for word, ours in _ABILITIES.items() if known.intersection(ours)] or ["completion"]


def shown(table: Table, found: Resolved) -> dict[str, Any]:
    """`/api/show`."""
    facts = _facts(table, found.name)
    family = (facts.architecture if facts is not None else None) or "unknown"
    length = _length(facts) or UNKNOWN_LENGTH
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": _details(table, found.name),
        "model_info": {
            "general.architecture": family,
            "general.basename": found.name,
            "general.context_length": length,
            f"{family}.context_length": length,
        },
        "modified_at": _time(table.created),
        "capabilities": _abilities(table, found.name),
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
