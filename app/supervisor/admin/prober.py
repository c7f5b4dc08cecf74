"""`modelport probe`: tiny real requests that show what a model can do, each made once per engine version."""

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
from app.supervisor.admin.capabilities import CapabilityStore, ProbeResult
from app.supervisor.admin.schemas import ProbeAnswer, ProbesAnswer
from app.supervisor.fleet.waiters import WaitOutcome
from app.table import Backend, Table, Target
from backends.endpoint import CAPABILITIES, FAILED, VERIFIED, Dialect, Endpoint, ModelFacts, State
from backends.errors import BackendError, EngineFailed
from backends.http.probe_client import ProbeClient, Reply
from backends.ollama import response as ollama_response
from backends.ollama.request import translate

TEST_S: Final = 90.0  # for one test: a few tokens on a slow processor
_PATHS: Final = {"chat": "/chat/completions", "text_completion": "/completions", "embeddings": "/embeddings"}
_NOTE_SCHEMA: Final = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
_OK_SCHEMA: Final = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
# The response proves neither: it was cut off before it could show anything.
UNDECIDED: Final = "undecided"


def _png() -> str:
    """A grey picture of 32 by 32 pixels as a data URL."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + b"\x80" * 96) * 32)
    head = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def probe_request(capability: str) -> tuple[str, dict[str, Any]]:
    """The operation and the body (without `model`) of the request that tests this capability."""
    match capability:
        case "completion":
            return "text_completion", {"prompt": "a", "max_tokens": 1}
        case "embedding":
            return "embeddings", {"input": "a"}
        case "tools":
            tool = {
                "type": "function",
                "function": {"name": "note", "description": "Notes.", "parameters": _NOTE_SCHEMA},
            }
            return "chat", _chat("Note: hi", 128) | {"tools": [tool], "tool_choice": "required"}
        case "vision":
            parts = [{"type": "image_url", "image_url": {"url": _png()}}, {"type": "text", "text": "Which colour?"}]
            return "chat", _chat(parts, 1)
        case "reasoning":
            return "chat", _chat("What is 17 and 25?", 96)
        case "json_schema":
            schema = {"name": "answer", "strict": True, "schema": _OK_SCHEMA}
            response_format = {"type": "json_schema", "json_schema": schema}
            return "chat", _chat("Is water wet? Answer in JSON.", 128) | {"response_format": response_format}
        case "logprobs":
            return "chat", _chat("Hi", 1) | {"logprobs": True, "top_logprobs": 1}
        case _:
            return "chat", _chat("Hi", 1)


def _chat(content: object, max_tokens: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": max_tokens, "temperature": 0}


def verdict(capability: str, response: Any) -> str:
    """What a successful response proves of a capability: VERIFIED, FAILED, or UNDECIDED where it was cut off."""
    try:
        if capability == "embedding":
            return VERIFIED if response["data"][0]["embedding"] else FAILED
        choice = response["choices"][0]
        if capability == "completion":
            return VERIFIED if isinstance(choice["text"], str) else FAILED
        message, is_cut = choice["message"], choice.get("finish_reason") == "length"
        match capability:
            case "tools":
                is_shown = any(call["function"]["name"] == "note" for call in message.get("tool_calls") or ())
            case "reasoning":
                is_shown, is_cut = bool(message.get("reasoning") or message.get("reasoning_content")), False
            case "json_schema":
                is_shown = _follows_schema(message.get("content"))
            case "logprobs":
                is_shown, is_cut = bool((choice.get("logprobs") or {}).get("content")), False
            case _:
                is_shown, is_cut = isinstance(message, dict), False
    except (KeyError, IndexError, TypeError, AttributeError):
        return FAILED
    return VERIFIED if is_shown else UNDECIDED if is_cut else FAILED


def _follows_schema(content: object) -> bool:
    try:
        value = msgspec.json.decode(content) if isinstance(content, str) else None
    except msgspec.DecodeError:
        return False
    return isinstance(value, dict) and set(value) == {"ok"} and isinstance(value["ok"], bool)


class Prober:
    """Tests models with real requests and keeps what they show.

    `wanted`: the fleet's, which starts a backend and waits for it; `rows`: all backends as they are now; `changed` is
    called when a test has shown something.
    """

    def __init__(
        self,
        capabilities: CapabilityStore,
        wanted: Callable[[str], Awaitable[WaitOutcome]],
        rows: Callable[[], Mapping[str, Backend]],
        changed: Callable[[], object],
    ) -> None:
        self._capabilities = capabilities
        self._wanted = wanted
        self._rows = rows
        self._changed = changed

    async def probe(self, table: Table, name: str, asked: Collection[str], *, again: bool) -> ProbesAnswer:
        """Test a public name for these capabilities, once at each different engine that serves it.

        What was tested before is not tested again, unless `again`. Problem when an engine cannot be reached now;
        KeyError when there is no model of that name.
        """
        resolved = resolve(table, name)
        if resolved is None:
            raise KeyError(name)
        engines = {
            (self._capabilities.engine(target.backend), table.backends[target.backend].fact_name(target.model)): target
            for target in reversed(resolved.model.targets)
            if target.backend in table.backends
        }
        try:
            probes = [await self._probe(target, asked, again=again) for target in reversed(engines.values())]
        except BackendError as exc:
            raise problem(exc) from exc
        return ProbesAnswer(model=resolved.name, probes=tuple(probes))

    async def _probe(self, target: Target, asked: Collection[str], *, again: bool) -> ProbeAnswer:
        waited = await self._wanted(target.backend)
        try:
            row = self._rows().get(target.backend)
            if row is None or not waited.is_ready or row.endpoint is None:
                row = row or Backend(target.backend, "", State.STOPPED)
                raise row.not_ready(time.time(), waited.reason or "it is not ready", waited.retry_after_s)
            key, facts = row.fact_name(target.model), row.fact(target.model)
            before = self._capabilities.of(row.name, key, row.version)
            known = dict(before.capabilities) if before is not None else {}
            for capability in [each for each in CAPABILITIES if each in asked and (again or each not in known)]:
                outcome = await _test(row.endpoint, target.model, facts, capability)
                known.pop(capability, None)
                known |= {capability: outcome} if outcome != UNDECIDED else {}
        finally:
            if waited.permit is not None:
                waited.permit.release()
        length = facts.context_length if facts is not None else None
        result = ProbeResult(self._capabilities.engine(row.name), row.name, key, row.version, length, known)
        await asyncio.to_thread(self._capabilities.put, result)
        self._changed()
        reported = facts.capabilities if facts is not None else {}
        return ProbeAnswer(
            backend=row.name, version=row.version, context_length=length, capabilities={**reported, **known}
        )


async def _test(endpoint: Endpoint, model: str, facts: ModelFacts | None, capability: str) -> str:
    """VERIFIED, FAILED or UNDECIDED; BackendError when the engine is too busy, or gone."""
    operation, body = probe_request(capability)
    sent = msgspec.json.encode({"model": model, **body})
    client = ProbeClient(endpoint.engine)
    if endpoint.dialect is not Dialect.OLLAMA:
        url = f"{endpoint.address}{_PATHS[operation]}"
        reply = await _ask(client, endpoint, url, sent)
        return verdict(capability, reply.json()) if reply.status == 200 else FAILED
    try:
        asked = translate(operation, sent, engine=endpoint.engine, name=model, model=model, facts=facts)
    except BackendError:  # its API has no words for this
        return FAILED
    reply = await _ask(client, endpoint, f"{endpoint.address}{asked.path}", asked.body)
    if reply.status != 200:
        return FAILED
    head = ollama_response.ResponseHead(endpoint.engine, asked, "probe", int(time.time()))
    return verdict(capability, msgspec.json.decode(ollama_response.whole(head, reply.body)[0]))


async def _ask(client: ProbeClient, endpoint: Endpoint, url: str, body: bytes) -> Reply:
    value = msgspec.json.decode(body)
    reply = await client.ask(url, endpoint.headers, timeout_s=TEST_S, body=value, dial=endpoint.dial)
    if reply.status in (401, 403, 408, 429, 502, 503, 504):
        raise EngineFailed(endpoint.engine, f"a test request ended with status {reply.status}")
    return reply
