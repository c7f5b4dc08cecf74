"""The daemon's whole responses as OpenAI's, and responses that are not valid."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends.errors import BackendError, Broken, EngineFailed, Rejected
from backends.ollama.request import OllamaRequest
from backends.ollama.response import ResponseHead, whole
from tests.rigs.transcripts import transcripts


def head(operation: str = "chat", *, is_base64: bool = False) -> ResponseHead:
    return ResponseHead("ollama", OllamaRequest(operation, "", b"", "mine", is_base64=is_base64, num_ctx=64), "id-1", 1)


def answered(body: bytes, operation: str = "chat") -> dict[str, Any]:
    response: dict[str, Any] = json.loads(whole(head(operation), body)[0])
    return response


def recorded(name: str) -> bytes:
    return transcripts()[name].answer.encode()


def test_a_recorded_chat_reads_as_openais() -> None:
    assert answered(recorded("020_chat_nostream")) == {
        "id": "id-1",
        "object": "chat.completion",
        "created": 1,
        "model": "mine",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there. I'm here to help"},
                "finish_reason": "length",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20},
    }


def test_recorded_logprobs_are_those_that_its_own_v1_gave() -> None:
    ours = answered(recorded("022_chat_logprobs"))["choices"][0]["logprobs"]["content"]

    assert ours == transcripts()["103_v1_chat_logprobs"].objects[0]["choices"][0]["logprobs"]["content"]


def test_a_recorded_tool_call_is_the_one_that_its_own_v1_gave() -> None:
    ours = answered(recorded("202_chat_tools_nostream"))["choices"][0]
    theirs = transcripts()["204_v1_tools_nostream"].objects[0]["choices"][0]

    assert ours["finish_reason"] == theirs["finish_reason"] == "tool_calls"
    assert ours["message"]["content"] is None
    (mine,), (other,) = ours["message"]["tool_calls"], theirs["message"]["tool_calls"]
    assert {**mine, "id": ""} == {**other, "id": ""}


def test_a_recorded_completion_reads_as_openais() -> None:
    response = answered(recorded("042_generate_raw"), "text_completion")

    assert response["object"] == "text_completion"
    assert response["choices"][0]["text"] == " a canvas of endless possibilities, where every"
    assert response["usage"] == {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11}


def test_embeddings_come_as_numbers_or_packed() -> None:
    body = b'{"model":"m","embeddings":[[1.0,-0.5]],"prompt_eval_count":3}'

    assert answered(body, "embeddings") == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [1.0, -0.5]}],
        "model": "mine",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    packed = json.loads(whole(head("embeddings", is_base64=True), body)[0])
    assert packed["data"][0]["embedding"] == "AACAPwAAAL8="


WRONG: dict[str, tuple[str, bytes, type[BackendError]]] = {
    "an error under a good status": ("chat", b'{"error":"it died"}', EngineFailed),
    "too long under a good status": ("chat", b'{"error":"exceeds the context length"}', Rejected),
    "nothing": ("chat", b"", Broken),
    "no JSON": ("chat", b"<html>", Broken),
    "not finished": ("chat", b'{"message":{"content":"x"},"done":false}', Broken),
    "no message": ("chat", b'{"done":true}', Broken),
    "no text": ("text_completion", b'{"done":true}', Broken),
    "no embeddings": ("embeddings", b'{"model":"m"}', Broken),
    "progress": ("chat", b'{"status":"success"}', Broken),
}


@pytest.mark.parametrize(("operation", "body", "kind"), WRONG.values(), ids=WRONG)
def test_what_is_not_a_valid_response_is_an_error(operation: str, body: bytes, kind: type[BackendError]) -> None:
    with pytest.raises(kind):
        whole(head(operation), body)
