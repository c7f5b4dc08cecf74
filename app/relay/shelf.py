"""What Ollama's clients are told of the models here: lists, details, the daemon itself. Pure.

Most of what Ollama tells of a file is not known here and left empty, but for models of a daemon, of which it has told
something; nothing is made up but the digest, without which some clients fail.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from app.routing import Resolved, resolve
from app.table import Table
from backends.base import ModelFacts, State

# Whose API this is: clients ask for it before they use what is new, and look up whether it has known holes.
OLLAMA_VERSION = "0.35.0"
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
        "size": 0,
        "digest": hashlib.sha256(name.encode()).hexdigest(),
        "details": _details(table, name),
    }


def running(table: Table, name: str) -> dict[str, Any]:
    """One of `/api/ps`."""
    told = entry(table, name)
    del told["modified_at"]
    facts = _facts(table, name)
    length = {"context_length": facts.num_ctx} if facts is not None and facts.num_ctx else {}
    size = facts.memory_bytes if facts is not None else 0
    return {**told, "size": size, "expires_at": _FOREVER, "size_vram": 0, **length}


def runs(table: Table, name: str, backend: str) -> bool:
    """Whether its engine serves now; a daemon's model only while it is loaded."""
    found = table.backends.get(backend)
    facts = _facts(table, name)
    return found is not None and found.state is State.READY and (facts is None or facts.is_loaded)


def _facts(table: Table, name: str) -> ModelFacts | None:
    found = resolve(table, name)
    if found is None or not found.model.targets:
        return None
    target = found.model.targets[0]
    backend = table.backends.get(target.backend)
    return backend.fact(target.model) if backend is not None and backend.kind == "ollama" else None


def shown(table: Table, found: Resolved) -> dict[str, Any]:
    """`/api/show`."""
    facts = _facts(table, found.name)
    can = {"capabilities": facts.abilities} if facts is not None and facts.abilities is not None else {}
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": _details(table, found.name),
        "model_info": {"general.context_length": facts.num_ctx} if facts is not None and facts.num_ctx else {},
        "modified_at": _time(table.created),
        **can,
    }


def _details(table: Table, name: str) -> dict[str, Any]:
    model = table.models.get(name)
    parent = model.parent if model is not None else None
    return {
        "parent_model": parent or "",
        "format": "",
        "family": "",
        "families": [],
        "parameter_size": "",
        "quantization_level": "",
    }


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
