"""The bytes that engines send, as they were recorded: responses, stream events, errors, lists of models.

vLLM's shapes are those of its recorded responses: the first event has a role and an empty content, the last text comes
together with its `finish_reason`, usage is one more event with no choices and only when asked for. llama.cpp's are
those of the embedded engine (tests/unit/house/test_fake_engine.py compares them with the real one): the first content
is null, the last choice is empty, and what comes last carries `timings`.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WORDS = ("The", " sum", " of", " 7", " and", " 5", " is", " zwölf", ",", " 十二", " 🙂", ".")
TEXT = "".join(WORDS)
REFUSAL = "The engine refuses this."
SECRET = "/srv/engine-internals/worker.py"  # stands in a traceback: no client may ever see it
JUNK = "JUNK-AFTER-THE-END"
CREATED = 1795334422
DONE = b"data: [DONE]\n\n"
DIALECTS = ("vllm", "openai", "llama_cpp", "string", "detail", "detail_list", "traceback", "empty")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """What an engine reads from a request: the route's last part (chat, completions, embeddings) and a few fields."""

    route: str
    model: str
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    inputs: tuple[Any, ...] = ()
    base64: bool = False

    @classmethod
    def read(cls, path: str, body: bytes, default_model: str) -> Ask:
        """Read a request from its bytes; ValueError when they are not a JSON object."""
        fields = json.loads(body)
        if not isinstance(fields, dict):
            raise ValueError("not a JSON object")
        given = fields.get("input", "")
        many = isinstance(given, list) and not (given and isinstance(given[0], int))
        return cls(
            route="chat" if "/chat/" in path else path.rsplit("/", 1)[-1],
            model=fields.get("model") or default_model,  # vLLM and llama.cpp accept a request without a model
            stream=fields.get("stream") is True,
            include_usage=bool((fields.get("stream_options") or {}).get("include_usage")),
            max_tokens=fields.get("max_completion_tokens") or fields.get("max_tokens"),
            inputs=tuple(given) if many else (given,),
            base64=fields.get("encoding_format") == "base64",
        )

    @property
    def words(self) -> tuple[str, ...]:
        """The pieces of the text, as many as the request allows."""
        return WORDS[: self.max_tokens]

    @property
    def finish_reason(self) -> str:
        return "stop" if len(self.words) == len(WORDS) else "length"


def head(status: int, reason: str, *headers: str, version: str = "1.1") -> bytes:
    """Status line and header lines, ended."""
    return "\r\n".join([f"HTTP/{version} {status} {reason}", "server: uvicorn", *headers, "", ""]).encode("latin-1")


def whole(status: int, body: bytes, kind: str = "application/json", *headers: str, reason: str = "Whatever") -> bytes:
    """A complete response with its length."""
    reason = "OK" if status == 200 else reason
    return head(status, reason, f"content-type: {kind}", f"content-length: {len(body)}", *headers) + body


def chunk(data: bytes) -> bytes:
    """`data` as one HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


SSE_HEAD = head(200, "OK", "content-type: text/event-stream; charset=utf-8", "transfer-encoding: chunked")
LAST_CHUNK = b"0\r\n\r\n"


def dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def sse(value: object) -> bytes:
    """One event as vLLM and llama.cpp frame it."""
    return b"data: " + dumps(value) + b"\n\n"


def usage(ask: Ask, count: int | None = None) -> Json:
    completion = len(ask.words) if count is None else count
    return {
        "prompt_tokens": 12,
        "total_tokens": 12 + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": None,
    }


def timings(ask: Ask) -> Json:
    """llama.cpp's `timings`."""
    cached = {
        "cache_n": 0,
        "prompt_n": 12,
        "prompt_ms": 21.165,
        "prompt_per_token_ms": 1.76,
        "prompt_per_second": 567.0,
    }
    predicted = {"predicted_n": len(ask.words), "predicted_ms": 59.886, "predicted_per_token_ms": 5.0}
    return cached | predicted | {"predicted_per_second": 200.4}


def _frame(ask: Ask, choices: Sequence[Json]) -> Json:
    kind = "chat.completion.chunk" if ask.route == "chat" else "text_completion"
    prefix = "chatcmpl" if ask.route == "chat" else "cmpl"
    return {
        "id": f"{prefix}-8f2c1d",
        "object": kind,
        "created": CREATED,
        "model": ask.model,
        "choices": list(choices),
    }


def piece(ask: Ask, text: str | None, finish_reason: str | None = None, *, role: bool = False) -> Json:
    """One event of a stream, with a piece of text."""
    if ask.route != "chat":
        return _frame(ask, [{"index": 0, "text": text or "", "logprobs": None, "finish_reason": finish_reason}])
    delta: Json = {"role": "assistant"} if role else {}
    delta |= {"content": text} if text is not None or role else {}
    return _frame(ask, [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}])


def pieces(ask: Ask, words: Sequence[str] | None = None) -> list[Json]:
    """vLLM's events of a whole stream, without usage."""
    words = ask.words if words is None else words
    opening = [piece(ask, "", role=True)] if ask.route == "chat" else []
    last = len(words) - 1
    return opening + [piece(ask, word, ask.finish_reason if at == last else None) for at, word in enumerate(words)]


def usage_piece(ask: Ask) -> Json:
    return _frame(ask, []) | {"usage": usage(ask)}


def llama_cpp_pieces(ask: Ask) -> list[Json]:
    """llama.cpp's events of a whole stream."""
    stamp = {"system_fingerprint": "b0-unknown"}
    opening = [piece(ask, None, role=True)] if ask.route == "chat" else []
    parts = [
        *opening,
        *(piece(ask, word) for word in ask.words),
        piece(ask, None, ask.finish_reason),
    ]
    for part in parts:
        if ask.route == "chat":
            del part["choices"][0]["logprobs"]
        part |= stamp
    if ask.include_usage and ask.route == "chat":
        parts.append(_frame(ask, []) | stamp)
    if ask.include_usage or ask.route != "chat":  # completions tell it unasked
        parts[-1]["usage"] = usage(ask) | {"prompt_tokens_details": {"cached_tokens": 0}}
    parts[-1]["timings"] = timings(ask)
    return parts


def answer(ask: Ask) -> Json:
    """A response that is not streamed."""
    if ask.route == "embeddings":
        vectors = [[round(0.1 * at + place, 3) for at in range(8)] for place in range(len(ask.inputs))]
        data = [{"index": at, "object": "embedding", "embedding": _vector(ask, v)} for at, v in enumerate(vectors)]
        used = {"prompt_tokens": 4 * len(data), "total_tokens": 4 * len(data), "completion_tokens": 0}
        return {
            "id": "embd-8f2c1d",
            "object": "list",
            "created": CREATED,
            "model": ask.model,
            "data": data,
            "usage": used,
        }
    text = "".join(ask.words)
    content: Json = {"message": {"role": "assistant", "content": text}} if ask.route == "chat" else {"text": text}
    choice = {"index": 0, **content, "logprobs": None, "finish_reason": ask.finish_reason, "stop_reason": None}
    frame = _frame(ask, [choice]) | {"usage": usage(ask)}
    return frame | ({"object": "chat.completion"} if ask.route == "chat" else {})


def _vector(ask: Ask, values: Sequence[float]) -> Sequence[float] | str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode() if ask.base64 else values


def error_event(message: str = "EngineCore encountered an issue.") -> bytes:
    """The event with which vLLM ends a stream that it cannot finish."""
    return sse({"error": {"message": message, "type": "InternalServerError", "param": None, "code": 500}})


def error_body(dialect: str, status: int) -> tuple[bytes, str]:
    """A refusal as one kind of engine writes it, and its content type."""
    match dialect:
        case "vllm":
            body = dumps({"error": {"message": REFUSAL, "type": "BadRequestError", "param": None, "code": status}})
        case "openai":
            fields = {"message": REFUSAL, "type": "invalid_request_error", "param": "messages", "code": "engine_code"}
            body = dumps({"error": fields})
        case "llama_cpp":
            body = dumps({"error": {"code": status, "message": REFUSAL, "type": "invalid_request_error"}})
        case "string":
            body = dumps({"error": "Unauthorized"})
        case "detail":
            body = dumps({"detail": REFUSAL})
        case "detail_list":
            body = dumps({"detail": [{"loc": ["body", "messages"], "msg": REFUSAL, "type": "missing"}]})
        case "traceback":
            trace = f'Traceback (most recent call last):\n  File "{SECRET}", line 7, in step\nRuntimeError: boom\n'
            return trace.encode(), "text/plain; charset=utf-8"
        case _:
            return b"", "text/plain; charset=utf-8"
    return body, "application/json"


def models(names: Sequence[str]) -> Json:
    """The list of models as vLLM writes it."""
    rows = [
        {"id": name, "object": "model", "created": CREATED, "owned_by": "vllm", "root": name, "parent": None}
        for name in names
    ]
    return {"object": "list", "data": [row | {"max_model_len": 2048, "permission": []} for row in rows]}
