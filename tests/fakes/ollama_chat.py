"""The fake daemon's `/api/chat` and `/api/generate`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.fakes.ollama import DIED, Asked, FakeOllama, Fault, Reply, keep_s
from tests.fakes.ollama_go import dumps, mismatch, time_of
from tests.fakes.ollama_models import Refused, full
from tests.fakes.ollama_voice import DEFAULTS, Ask, Generated, tokens
from tests.rigs.transcripts import Json

_WHOLE = ("num_ctx", "num_predict", "top_k", "seed", "num_keep", "repeat_last_n", "num_batch", "num_gpu", "num_thread")
_NUMBERS = ("temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
OVERLONG = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the "
    "context length in settings, or use a model with a longer context length"
)
# A request's way of writing: what is generated → the bytes of one object; and the last one of all.
Piece = Callable[[Json], Json]


async def chat(daemon: FakeOllama, reply: Reply, asked: Json) -> None:
    """`/api/chat`."""
    messages = asked.get("messages") or []
    if not isinstance(messages, list):
        raise Refused(400, mismatch(messages, "ChatRequest.messages", "[]api.Message"))
    for message in messages:
        if not isinstance(message.get("content", ""), str):
            raise Refused(400, mismatch(message["content"], "Message.ChatRequest.messages.content", "string"))
    if await _only_loads(daemon, reply, asked, not messages, {"message": {"role": "assistant", "content": ""}}):
        return
    ask = read_ask(daemon, asked)
    ask.messages, ask.tools, ask.think = messages, asked.get("tools") or [], asked.get("think")
    _check_abilities(ask, asked)
    if asked.get("_debug_render_only") is True and daemon.renders is not None:
        await _render(daemon, reply, asked, ask)
        return

    def piece(generated: Json) -> Json:
        return {"message": {"role": "assistant", **_ordered(generated)}}

    await answer(daemon, reply, asked, ask, piece)


async def _render(daemon: FakeOllama, reply: Reply, asked: Json, ask: Ask) -> None:
    """Returns the prompt that would be built; the model is loaded for it as for any request."""
    num_ctx = num_ctx_of(daemon, ask)
    daemon.asked.append(Asked(reply.record.path, asked, reply.record, ask.options, num_ctx))
    async with daemon.turn(ask.model, num_ctx, keep_s(asked), asked.get("shift") is not False):
        assert daemon.renders is not None
        rendered = daemon.renders(ask.messages)
    if rendered is None:
        raise Refused(500, 'template: :1:12: executing "" at <raise>: System message must be at the beginning')
    await reply.send_json({**_head(asked), "_debug_info": {"rendered_template": rendered}})


async def generate(daemon: FakeOllama, reply: Reply, asked: Json) -> None:
    """`/api/generate`."""
    prompt = asked.get("prompt") or ""
    if not isinstance(prompt, str):
        raise Refused(400, mismatch(prompt, "GenerateRequest.prompt", "string"))
    if await _only_loads(daemon, reply, asked, not prompt, {"response": ""}):
        return
    ask = read_ask(daemon, asked)
    ask.prompt, ask.is_raw = prompt, asked.get("raw") is True
    if asked.get("suffix") and "insert" not in ask.model.capabilities:
        raise Refused(400, f"registry.ollama.ai/library/{full(ask.model.name)} does not support insert")
    await answer(daemon, reply, asked, ask, lambda generated: {"response": generated["content"]})


def _ordered(generated: Json) -> Json:
    return {key: generated[key] for key in ("content", "thinking", "tool_calls") if key in generated}


async def _only_loads(daemon: FakeOllama, reply: Reply, asked: Json, is_empty: bool, empty: Json) -> bool:
    """Without a prompt the model is loaded, or with `keep_alive` 0 unloaded."""
    if not is_empty or not asked.get("model"):
        return False
    stays_s = keep_s(asked)
    ask = read_ask(daemon, asked)
    reason = "load"
    if stays_s <= 0:
        daemon.store.loaded.pop(full(ask.model.name).lower(), None)
        reason = "unload"
    else:
        async with daemon.turn(ask.model, num_ctx_of(daemon, ask), stays_s, asked.get("shift") is not False):
            pass
    head = {"model": asked["model"], "created_at": time_of(time.time())}
    await reply.send_json({**head, **empty, "done": True, "done_reason": reason})
    return True


def read_ask(daemon: FakeOllama, asked: Json) -> Ask:
    """The model and the effective options: those of the request, else of the Modelfile, else the defaults."""
    name = asked.get("model")
    if not name:
        raise Refused(400, "model is required")
    model = daemon.store.find(name)
    keep_s(asked)
    given = asked.get("options") or {}
    for key, value in given.items():
        if key in _WHOLE and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise Refused(500, f'option "{key}" must be of type integer')
        if key in _NUMBERS and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise Refused(500, f'option "{key}" must be of type float32')
    options = {**DEFAULTS, **model.parameters, **given}
    return Ask(
        model=model, options=options, given=given, format=asked.get("format"), logprobs=asked.get("logprobs") is True
    )


def num_ctx_of(daemon: FakeOllama, ask: Ask) -> int:
    """The context length that the model runs with for this request."""
    return min(int(ask.options.get("num_ctx", daemon.num_ctx)), ask.model.length)


def _check_abilities(ask: Ask, asked: Json) -> None:
    if ask.tools and "tools" not in ask.model.capabilities:
        raise Refused(400, f"registry.ollama.ai/library/{full(ask.model.name)} does not support tools")
    if ask.think and "thinking" not in ask.model.capabilities:
        raise Refused(400, f'"{asked["model"]}" does not support thinking')
    has_images = any(message.get("images") for message in ask.messages)
    if has_images and "vision" not in ask.model.capabilities:
        message = "Multimodal data provided, but model does not support multimodal requests."
        raise Refused(400, _nested({"code": 400, "message": message, "type": "invalid_request_error"}))


def _nested(error: Json) -> str:
    return json.dumps({"error": error}, separators=(",", ":"))


async def answer(daemon: FakeOllama, reply: Reply, asked: Json, ask: Ask, piece: Piece) -> None:
    """A generation from beginning to end, in the daemon's own format."""

    async def whole(generated: Generated, load_s: float) -> None:
        text = "".join(str(each.get("content", "")) for each in generated.pieces)
        all_of: Json = {"content": text}
        for name in ("thinking", "tool_calls"):
            parts = [each[name] for each in generated.pieces if name in each]
            if parts:
                all_of[name] = "".join(parts) if name == "thinking" else [call for part in parts for call in part]
        end = _end(generated, load_s)
        probs = {"logprobs": generated.logprobs} if generated.logprobs and ask.logprobs else {}
        done = {"done": end.pop("done"), "done_reason": end.pop("done_reason"), **probs, **end}
        await reply.send_json({**_head(asked), **piece(all_of), **done})

    async def lines(generated: Generated, load_s: float) -> list[bytes]:
        made = [dumps({**_head(asked), **piece(each), "done": False}) + b"\n" for each in generated.pieces]
        return [*made, dumps({**_head(asked), **piece({"content": ""}), **_end(generated, load_s)}) + b"\n"]

    is_stream = asked.get("stream") is not False
    await run(daemon, reply, asked, ask, whole=None if is_stream else whole, lines=lines)


async def run(
    daemon: FakeOllama,
    reply: Reply,
    asked: Json,
    ask: Ask,
    *,
    whole: Callable[[Generated, float], Any] | None,
    lines: Callable[[Generated, float], Any],
    kind: str = "application/x-ndjson",
    last_words: Callable[[str], bytes] = lambda text: dumps({"error": text}) + b"\n",
) -> None:
    """Load, wait for a slot, cut what is too long, and respond; a client that leaves frees its slot."""
    num_ctx = num_ctx_of(daemon, ask)
    ask.path, ask.is_stream = reply.record.path, whole is None
    noted = Asked(reply.record.path, asked, reply.record, ask.options, num_ctx)
    daemon.asked.append(noted)
    try:
        async with daemon.turn(ask.model, num_ctx, keep_s(asked), asked.get("shift") is not False) as load_s:
            _check_length(ask, asked, num_ctx)
            generated = _bounded(await daemon.generate(ask), asked, num_ctx)
            fault = daemon.fault()
            if fault is not None and (fault.status or whole is not None):
                raise Refused(fault.status or 500, fault.text)
            if whole is not None:
                await _hold(daemon, len(generated.pieces))
                await whole(generated, load_s)
                return
            await reply.start(kind)
            await _stream(daemon, reply, await lines(generated, load_s), fault, last_words)
    except asyncio.CancelledError:
        noted.cancelled.set()
        raise


async def _hold(daemon: FakeOllama, pieces: int) -> None:
    if daemon.hold is not None:
        await daemon.hold.wait()
    await asyncio.sleep(daemon.piece_s * pieces)


async def _stream(
    daemon: FakeOllama, reply: Reply, lines: list[bytes], fault: Fault | None, last_words: Callable[[str], bytes]
) -> None:
    sent = lines if fault is None else lines[: fault.after]
    for number, line in enumerate(sent):
        if number:
            await _hold(daemon, 1)
        if not daemon.cuts:
            await reply.stream([line])
    if daemon.cuts:
        await reply.stream(sent, daemon.cuts)
    match fault.how if fault is not None else "":
        case "line":
            assert fault is not None
            await reply.stream([last_words(fault.text or DIED)])
        case "cut":
            reply.peer.fin()
            return
        case "reset":
            reply.peer.reset()
            return
    await reply.end()


def _check_length(ask: Ask, asked: Json, num_ctx: int) -> None:
    """A prompt that is too long is cut silently, unless the request forbids that."""
    count = tokens(ask)
    if count <= num_ctx:
        return
    if asked.get("truncate") is False:
        message = f"request ({count} tokens) exceeds the available context size ({num_ctx} tokens), try increasing it"
        error = {"code": 400, "message": message, "type": "exceed_context_size_error"}
        raise Refused(400, _nested({**error, "n_prompt_tokens": count, "n_ctx": num_ctx}))
    if asked.get("shift") is False:
        raise Refused(400, OVERLONG)


def _bounded(generated: Generated, asked: Json, num_ctx: int) -> Generated:
    """Without `shift` a response ends where the context is full."""
    room = max(1, num_ctx - generated.prompt_tokens)
    if asked.get("shift") is not False or generated.count <= room:
        return generated
    return replace(generated, pieces=generated.pieces[:room], count=room, reason="length")


def _head(asked: Json) -> Json:
    return {"model": asked["model"], "created_at": time_of(time.time())}


def _end(generated: Generated, load_s: float) -> Json:
    return {
        "done": True,
        "done_reason": generated.reason,
        "total_duration": int(load_s * 1e9) + 50_000_000,
        "load_duration": int(load_s * 1e9),
        "prompt_eval_count": generated.prompt_tokens,
        "prompt_eval_duration": 7_000_000,
        "eval_count": generated.count,
        "eval_duration": 40_000_000,
    }
