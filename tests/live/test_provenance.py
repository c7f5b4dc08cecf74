"""Which bytes an answer of a real vLLM came from."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.journeys.gateway import until
from tests.live.engines import MODELS, Live, Record


def entries(live: Live) -> dict[str, Any]:
    """The servings by public name, as far as they are known."""
    models = live.ask("/admin/models")["models"]
    return {model["name"]: model["servings"][0] for model in models if model["servings"]}


def header(live: Live, model: str) -> str | None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    reply = live.post("/v1/chat/completions", body)
    assert reply.status_code == 200, reply.text
    digest: str | None = reply.headers.get("x-modelport-serving")
    return digest


def test_model_and_adapter_are_known_by_their_bytes(live: Live, record_property: Record) -> None:
    order = {"name": "by-bytes", "path": str(MODELS / "tiny-lora"), "proof": "off"}
    loaded = live.post_admin("/admin/backends/tiny/adapters/load", order)
    assert loaded.is_success, loaded.text
    try:
        until(lambda: {"tiny", "by-bytes"} <= entries(live).keys())
        known = entries(live)
        until(lambda: header(live, "tiny") == known["tiny"]["digest"])
        of_adapter = header(live, "by-bytes")
    finally:
        live.post_admin("/admin/backends/tiny/adapters/unload?adapter=by-bytes", None)

    weights = hashlib.sha256((MODELS / "tiny" / "model.safetensors").read_bytes()).hexdigest()
    assert known["tiny"]["weights"] == known["by-bytes"]["weights"] == weights
    assert (known["tiny"]["adapter"], of_adapter) == (None, known["by-bytes"]["digest"])
    assert known["by-bytes"]["adapter"] is not None
    assert known["tiny"]["digest"] != known["by-bytes"]["digest"]
    record_property("servings", {name: each["digest"] for name, each in known.items()})
