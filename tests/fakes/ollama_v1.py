"""The fake daemon's `/v1`: what it forces, ignores and loses, as recorded."""

from __future__ import annotations

import random
import time
from typing import Any

from tests.fakes.ollama import FakeOllama, Reply
from tests.fakes.ollama_chat import read_ask, run
from tests.fakes.ollama_go import dumps, mismatch
from tests.fakes.ollama_models import Refused, full
from tests.fakes.ollama_voice import Generated
from tests.rigs.transcripts import Json

_EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "ultra", "max", "none")
_NO_EFFORT = (
    'invalid reasoning value: "{}" (must be "minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none")'
)


def _options(asked: Json) -> Json:
    """Temperature and top_p are always set, whatever the Modelfile says; most of the rest is not read."""
    for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty"):
        if isinstance(asked.get(name), str):
            raise Refused(400, mismatch(asked[name], f"ChatCompletionRequest.{name}", "float64"))
    stop = asked.get("stop")
    return {
        "temperature": asked.get("temperature", 1.0),
        "top_p": asked.get("top_p", 1.0),
        **({"num_predict": asked["max_tokens"]} if asked.get("max_tokens") else {}),
        **({"seed": asked["seed"]} if asked.get("seed") is not None else {}),
        **({"stop": [stop] if isinstance(stop, str) else stop} if stop else {}),
    }


def _messages(asked: Json) -> list[Json]:
    """Each part of a content is a message of its own."""
    given = asked.get("messages") or []
    if not given:
        raise Refused(400, "[] is too short - 'messages'")
    made: list[Json] = []
    for message in given:
        content = message.get("content")
        if isinstance(content, list):
            if any(part.get("type") == "image_url" for part in content):
                raise Refused(400, "image URLs are not currently supported, please use base64 encoded data instead")
            made += [{"role": message["role"], "content": part["text"]} for part in content]
        elif content is None and not message.get("tool_calls"):
            raise Refused(400, "invalid message content type: <nil>")
        else:
            made.append({**message, "content": content or ""})
        for call in message.get("tool_calls") or ():
            if not str(call["function"]["arguments"]).startswith("{"):
                raise Refused(400, "invalid tool call arguments")
    return made


async def v1_chat(daemon: FakeOllama, reply: Reply, asked: Json) -> None:
    """`/v1/chat/completions`."""
    options, messages = _options(asked), _messages(asked)
    effort = asked.get("reasoning_effort")
    if effort is not None and effort not in _EFFORTS:
        raise Refused(400, _NO_EFFORT.format(effort))
    form = asked.get("response_format") or {}
    schema = (form.get("json_schema") or {}).get("schema") or ("json" if form.get("type") == "json_object" else None)
    native = {"model": asked.get("model"), "options": options, "format": schema, "logprobs": asked.get("logprobs")}
    ask = read_ask(daemon, native)
    ask.messages, ask.tools = messages, asked.get("tools") or []
    if ask.tools and "tools" not in ask.model.capabilities:
        raise Refused(400, f"registry.ollama.ai/library/{full(ask.model.name)} does not support tools")
    if effort not in (None, "none") and "thinking" not in ask.model.capabilities:
        raise Refused(400, f'"{asked["model"]}" does not support thinking')
    shape = _Chat(asked)
    await run(
        daemon,
        reply,
        native,
        ask,
        whole=None if asked.get("stream") else shape.whole(reply, ask.logprobs),
        lines=shape.lines,
        kind="text/event-stream",
        last_words=shape.lost,
    )


async def v1_completions(daemon: FakeOllama, reply: Reply, asked: Json) -> None:
    """`/v1/completions`: the chat template is applied."""
    prompt = asked.get("prompt")
    if not isinstance(prompt, str):
        raise Refused(400, mismatch(prompt, "CompletionRequest.prompt", "string"))
    native = {"model": asked.get("model"), "options": _options(asked)}
    ask = read_ask(daemon, native)
    ask.prompt = prompt
    shape = _Text(asked)
    whole = None if asked.get("stream") else shape.whole(reply, False)
    await run(
        daemon, reply, native, ask, whole=whole, lines=shape.lines, kind="text/event-stream", last_words=shape.lost
    )


async def v1_embeddings(daemon: FakeOllama, reply: Reply, asked: Json, words: str) -> None:
    """`/v1/embeddings`, of models that have none."""
    form = asked.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise Refused(400, f"Invalid value for 'encoding_format' = {form}. Supported values: ['float', 'base64'].")
    given = asked.get("input")
    if isinstance(given, list) and not all(isinstance(each, str) for each in given):
        raise Refused(400, "invalid input type")
    daemon.store.find(str(asked.get("model")))
    raise Refused(501, words)


class _Chat:
    """The response to one chat."""

    kind = "chat.completion"

    def __init__(self, asked: Json) -> None:
        self.asked = asked
        self.wants_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        prefix = "chatcmpl" if isinstance(self, _Chat) and type(self) is _Chat else "cmpl"
        self.head: Json = {"id": f"{prefix}-{random.randrange(999)}", "created": int(time.time())}

    def usage(self, generated: Generated | None) -> Json:
        prompt, output = (generated.prompt_tokens, generated.count) if generated is not None else (0, 0)
        return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}

    def whole(self, reply: Reply, wants_probs: bool) -> Any:
        """A writer for the response in one piece."""

        async def write(generated: Generated, load_s: float) -> None:
            calls = [call for piece in generated.pieces for call in piece.get("tool_calls") or ()]
            message: Json = {
                "role": "assistant",
                "content": "".join(str(p.get("content", "")) for p in generated.pieces),
            }
            if calls:
                message["tool_calls"] = [_call(call) for call in calls]
            probs = {"logprobs": {"content": generated.logprobs}} if wants_probs and generated.logprobs else {}
            choice = {"index": 0, "message": message, "finish_reason": _finish(generated, bool(calls)), **probs}
            await reply.send_json(self.object(self.kind, [choice], usage=self.usage(generated)))

        return write

    def object(self, kind: str, choices: list[Json], **more: Any) -> Json:
        head = {"id": self.head["id"], "object": kind, "created": self.head["created"]}
        return {**head, "model": self.asked["model"], "system_fingerprint": "fp_ollama", "choices": choices, **more}

    async def lines(self, generated: Generated, load_s: float) -> list[bytes]:
        """The events of the response."""
        made: list[bytes] = []
        for number, piece in enumerate(generated.pieces):
            calls = piece.get("tool_calls")
            delta: Json = {**({} if number else {"role": "assistant"}), "content": piece.get("content", "")}
            if calls:
                delta["tool_calls"] = [_call(call) for call in calls]
            made.append(self.event([{"index": 0, "delta": delta, "finish_reason": None}]))
        has_calls = any(piece.get("tool_calls") for piece in generated.pieces)
        last = self.event([{"index": 0, "delta": {}, "finish_reason": _finish(generated, has_calls)}])
        usage = self.event([], usage=self.usage(generated)) if self.wants_usage else b""
        return [*made, last + usage + b"data: [DONE]\n\n"]

    def event(self, choices: list[Json], **more: Any) -> bytes:
        return b"data: " + dumps(self.object(f"{self.kind}.chunk", choices, **more)) + b"\n\n"

    def lost(self, text: str) -> bytes:
        """As the real daemon, it takes the error for an empty piece of the response."""
        chunk = self.object(f"{self.kind}.chunk", [{"index": 0, "delta": {"content": ""}, "finish_reason": None}])
        return b"data: " + dumps({**chunk, "model": ""}) + b"\n\n"


class _Text(_Chat):
    """The response to one completion: every event has the usage, once it was asked for."""

    kind = "text_completion"

    def whole(self, reply: Reply, wants_probs: bool) -> Any:
        async def write(generated: Generated, load_s: float) -> None:
            text = "".join(str(piece.get("content", "")) for piece in generated.pieces)
            choice = {"text": text, "index": 0, "finish_reason": _finish(generated, False)}
            await reply.send_json(self.object(self.kind, [choice], usage=self.usage(generated)))

        return write

    async def lines(self, generated: Generated, load_s: float) -> list[bytes]:
        made = [self.text(str(piece.get("content", "")), None) for piece in generated.pieces]
        last = self.text("", _finish(generated, False))
        usage = self.chunk([], usage=self.usage(generated)) if self.wants_usage else b""
        return [*made, last + usage + b"data: [DONE]\n\n"]

    def text(self, text: str, finish: str | None) -> bytes:
        more = {"usage": self.usage(None)} if self.wants_usage else {}
        return self.chunk([{"text": text, "index": 0, "finish_reason": finish}], **more)

    def chunk(self, choices: list[Json], **more: Any) -> bytes:
        head = {"id": self.head["id"], "object": self.kind, "created": self.head["created"], "choices": choices}
        tail = {"model": self.asked["model"], "system_fingerprint": "fp_ollama"}
        return b"data: " + dumps({**head, **tail, **more}) + b"\n\n"

    def lost(self, text: str) -> bytes:
        return self.text("", None).replace(dumps(self.asked["model"]), b'""')


def _finish(generated: Generated, has_calls: bool) -> str:
    return "tool_calls" if has_calls else generated.reason


def _call(call: Json) -> Json:
    function = call["function"]
    text = dumps(function["arguments"]).decode()
    made = {"name": function["name"], "arguments": text}
    return {"id": call["id"], "index": function["index"], "type": "function", "function": made}
