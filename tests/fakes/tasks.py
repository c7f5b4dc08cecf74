"""vLLM's responses to tasks other than text: ranks, scores, tokens, transcriptions. A token is a word, a score is a
length.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from email import message_from_bytes
from email.message import Message

from tests.fakes import wire
from tests.fakes.peer import Record

PATHS = ("/v1/rerank", "/v1/score", "/tokenize", "/detokenize", "/v1/audio/transcriptions")
SAID = "Zwölf ist die Summe."
_JSON = "application/json"


def answer(path: str, record: Record, models: Sequence[str]) -> tuple[int, str, bytes]:
    """Status, content type and body for one request."""
    fields = form(record) if path.startswith("/v1/audio/") else json.loads(record.body)
    model = fields.get("model", models[0])
    if model not in models:
        refusal = {"message": f"The model `{model}` does not exist.", "type": "NotFoundError", "code": 404}
        return 404, _JSON, wire.dumps({"error": refusal})
    if path == "/v1/audio/transcriptions":
        return _transcribed(fields, str(model))
    result = {"/v1/rerank": _ranked, "/v1/score": _scored, "/tokenize": _tokens, "/detokenize": _text}[path](fields)
    is_named = path in ("/v1/rerank", "/v1/score")
    return 200, _JSON, wire.dumps({**({"id": "x-1", "model": model, "usage": _USED} if is_named else {}), **result})


_USED = {"prompt_tokens": 9, "total_tokens": 9}


def _ranked(fields: wire.Json) -> wire.Json:
    ranked = sorted(enumerate(fields["documents"]), key=lambda pair: -len(pair[1]))
    rows = [{"index": at, "document": {"text": text}, "relevance_score": len(text) / 100} for at, text in ranked]
    return {"results": rows[: fields.get("top_n") or None]}


def _scored(fields: wire.Json) -> wire.Json:
    rows = [
        {"index": at, "object": "score", "score": len(text) / 100} for at, text in enumerate(fields.get("text_2") or [])
    ]
    return {"object": "list", "created": wire.CREATED, "data": rows}


def _tokens(fields: wire.Json) -> wire.Json:
    prompt = fields.get("prompt")
    text = prompt if isinstance(prompt, str) else " ".join(str(m.get("content")) for m in fields["messages"])
    words = text.split()
    spelled = words if fields.get("return_token_strs") else None
    return {"count": len(words), "max_model_len": 2048, "tokens": list(range(len(words))), "token_strs": spelled}


def _text(fields: wire.Json) -> wire.Json:
    return {"prompt": " ".join(f"w{token}" for token in fields["tokens"])}


def form(record: Record) -> wire.Json:
    """The fields of a form as Python's own library for mail reads them; a file is its bytes."""
    head = f"content-type: {record.header('content-type')}\r\n\r\n".encode()
    message = message_from_bytes(head + record.body)
    parts = message.get_payload()
    assert isinstance(parts, list)
    return dict(map(_field, parts))


def _field(part: object) -> tuple[str, object]:
    assert isinstance(part, Message)
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    name = str(part.get_param("name", header="content-disposition"))
    return name, payload if part.get_filename() else payload.decode()


def _transcribed(fields: wire.Json, model: str) -> tuple[int, str, bytes]:
    if fields.get("stream") == "true":
        choices: list[wire.Json] = [{"delta": {"content": word}, "finish_reason": None} for word in SAID.split()]
        choices[-1]["finish_reason"] = "stop"
        frame = {"id": "trsc-1", "object": "transcription.chunk", "created": wire.CREATED, "model": model}
        events = [wire.sse({**frame, "choices": [choice]}) for choice in choices]
        return 200, "text/event-stream; charset=utf-8", b"".join(events) + wire.DONE
    if fields.get("response_format") == "text":
        return 200, "text/plain; charset=utf-8", SAID.encode()
    if fields.get("prompt") == "chat":  # an answer to another question
        return 200, _JSON, wire.dumps({"choices": []})
    if fields.get("prompt") == "count":  # as OpenAI's newer models do
        used = {"type": "tokens", "input_tokens": 14, "output_tokens": 5, "total_tokens": 19}
        return 200, _JSON, wire.dumps({"text": SAID, "usage": used})
    return 200, _JSON, wire.dumps({"text": SAID, "usage": {"type": "duration", "seconds": 2}})
