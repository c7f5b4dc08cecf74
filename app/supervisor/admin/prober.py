"""`modelport probe`: tiny real requests that show what a model can do. Each is asked once per engine version."""

from __future__ import annotations

import asyncio
import base64
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

import msgspec

from app.errors import problem
from app.routing import resolve
from app.supervisor.admin.capabilities import CapabilityProof, CapabilityStore
from app.supervisor.admin.schemas import ProbeAnswer, ProbesAnswer
from app.supervisor.fleet.waiters import WaitOutcome
from app.table import Backend, Table, Target
from backends.endpoint import CAPABILITIES, FAILED, VERIFIED, Dialect, Endpoint, ModelFacts, State
from backends.errors import BackendError, EngineFailed
from backends.http.probe_client import ProbeClient, Reply
from backends.ollama import response as ollama_response
from backends.ollama.request import translate

TEST_S: Final = 90.0  # of one test: a few tokens on a slow processor
_PATHS: Final = {"chat": "/chat/completions", "text_completion": "/completions", "embeddings": "/embeddings"}
_NOTE: Final = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
_ANSWER: Final = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
# An answer that proves neither: it was too short to show it.
_OPEN: Final = "open"


def _png() -> str:
    """A grey square of 32 by 32 as a data URL."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + b"\x80" * 96) * 32)
    head = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def request(capability: str) -> tuple[str, dict[str, Any]]:
    """The operation and the body, but for the model's name, that shows it."""
    match capability:
        case "completion":
            return "text_completion", {"prompt": "a", "max_tokens": 1}
        case "embedding":
            return "embeddings", {"input": "a"}
        case "tools":
            tool = {"type": "function", "function": {"name": "note", "description": "Notes.", "parameters": _NOTE}}
            return "chat", _chat("Note: hi", 128) | {"tools": [tool], "tool_choice": "required"}
        case "vision":
            parts = [{"type": "image_url", "image_url": {"url": _png()}}, {"type": "text", "text": "Which colour?"}]
            return "chat", _chat(parts, 1)
        case "reasoning":
            return "chat", _chat("What is 17 and 25?", 96)
        case "json_schema":
            schema = {"name": "answer", "strict": True, "schema": _ANSWER}
            wanted = {"type": "json_schema", "json_schema": schema}
            return "chat", _chat("Is water wet? Answer in JSON.", 128) | {"response_format": wanted}
        case "logprobs":
            return "chat", _chat("Hi", 1) | {"logprobs": True, "top_logprobs": 1}
        case _:
            return "chat", _chat("Hi", 1)


def _chat(content: object, max_tokens: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": max_tokens, "temperature": 0}


def shown(capability: str, answer: Any) -> str:
    """What a good answer proves: VERIFIED, FAILED, or "open"."""
    try:
        if capability == "embedding":
            return VERIFIED if answer["data"][0]["embedding"] else FAILED
        choice = answer["choices"][0]
        if capability == "completion":
            return VERIFIED if isinstance(choice["text"], str) else FAILED
        message, is_cut = choice["message"], choice.get("finish_reason") == "length"
        match capability:
            case "tools":
                has = any(call["function"]["name"] == "note" for call in message.get("tool_calls") or ())
            case "reasoning":
                has, is_cut = bool(message.get("reasoning") or message.get("reasoning_content")), False
            case "json_schema":
                has = _is_schema(message.get("content"))
            case "logprobs":
                has, is_cut = bool((choice.get("logprobs") or {}).get("content")), False
            case _:
                has, is_cut = isinstance(message, dict), False
    except (KeyError, IndexError, TypeError, AttributeError):
        return FAILED
    return VERIFIED if has else _OPEN if is_cut else FAILED


def _is_schema(content: object) -> bool:
    try:
        told = msgspec.json.decode(content) if isinstance(content, str) else None
    except msgspec.DecodeError:
        return False
    return isinstance(told, dict) and set(told) == {"ok"} and isinstance(told["ok"], bool)


class Prober:
    """Tests models. `wanted`: as the fleet's; `rows`: the backends now; `changed`: something has been shown."""

    def __init__(
        self,
        proofs: CapabilityStore,
        wanted: Callable[[str], Awaitable[WaitOutcome]],
        rows: Callable[[], Mapping[str, Backend]],
        changed: Callable[[], object],
    ) -> None:
        self._proofs = proofs
        self._wanted = wanted
        self._rows = rows
        self._changed = changed

    async def probe(self, table: Table, name: str, wanted: Collection[str], *, again: bool) -> ProbesAnswer:
        """Test what was not tested yet of these capabilities, at each different engine; Problem when one cannot be
        asked now. KeyError: no model of that name.
        """
        found = resolve(table, name)
        if found is None:
            raise KeyError(name)
        engines = {
            (self._proofs.engine(target.backend), table.backends[target.backend].fact_name(target.model)): target
            for target in reversed(found.model.targets)
            if target.backend in table.backends
        }
        try:
            told = [await self._target(target, wanted, again=again) for target in reversed(engines.values())]
        except BackendError as exc:
            raise problem(exc) from exc
        return ProbesAnswer(model=found.name, probes=tuple(told))

    async def _target(self, target: Target, wanted: Collection[str], *, again: bool) -> ProbeAnswer:
        outcome = await self._wanted(target.backend)
        try:
            row = self._rows().get(target.backend)
            if row is None or not outcome.is_ready or row.endpoint is None:
                row = row or Backend(target.backend, "", State.STOPPED)
                raise row.not_ready(time.time(), outcome.reason or "it is not ready", outcome.retry_after_s)
            key, facts = row.fact_name(target.model), row.fact(target.model)
            before = self._proofs.of(row.name, key, row.version)
            known = dict(before.capabilities) if before is not None else {}
            for capability in [each for each in CAPABILITIES if each in wanted and (again or each not in known)]:
                result = await _test(row.endpoint, target.model, facts, capability)
                known.pop(capability, None)
                known |= {capability: result} if result != _OPEN else {}
        finally:
            if outcome.permit is not None:
                outcome.permit.release()
        length = facts.context_length if facts is not None else None
        proof = CapabilityProof(self._proofs.engine(row.name), row.name, key, row.version, length, known)
        await asyncio.to_thread(self._proofs.put, proof)
        self._changed()
        said = facts.capabilities if facts is not None else {}
        return ProbeAnswer(backend=row.name, version=row.version, context_length=length, capabilities={**said, **known})


async def _test(endpoint: Endpoint, model: str, facts: ModelFacts | None, capability: str) -> str:
    """VERIFIED, FAILED or "open"; BackendError when the engine is too busy, or gone."""
    operation, body = request(capability)
    sent = msgspec.json.encode({"model": model, **body})
    control = ProbeClient(endpoint.engine)
    if endpoint.dialect is not Dialect.OLLAMA:
        url = f"{endpoint.address}{_PATHS[operation]}"
        reply = await _ask(control, endpoint, url, sent)
        return shown(capability, reply.json()) if reply.status == 200 else FAILED
    try:
        asked = translate(operation, sent, engine=endpoint.engine, name=model, model=model, facts=facts)
    except BackendError:  # it cannot even be said
        return FAILED
    reply = await _ask(control, endpoint, f"{endpoint.address}{asked.path}", asked.body)
    if reply.status != 200:
        return FAILED
    head = ollama_response.ResponseHead(endpoint.engine, asked, "probe", int(time.time()))
    return shown(capability, msgspec.json.decode(ollama_response.whole(head, reply.body)[0]))


async def _ask(control: ProbeClient, endpoint: Endpoint, url: str, body: bytes) -> Reply:
    value = msgspec.json.decode(body)
    reply = await control.ask(url, endpoint.headers, timeout_s=TEST_S, body=value, dial=endpoint.dial)
    if reply.status in (401, 403, 408, 429, 502, 503, 504):
        raise EngineFailed(endpoint.engine, f"a test request ended with status {reply.status}")
    return reply
