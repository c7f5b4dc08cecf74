"""The daemon's errors: what each of the recorded ones means."""

from __future__ import annotations

import pytest

from backends.errors import BackendError, NotReady, Unsupported
from backends.ollama.failures import read, refusal
from backends.prompt_too_long import TooLong
from tests.rigs.transcripts import transcripts

RECORDED: dict[str, tuple[type[BackendError] | None, str]] = {
    "024_chat_think_unsupported": (Unsupported, "The model does not support thinking."),
    "025_chat_tools_unsupported": (Unsupported, "The model does not support tools."),
    "026_chat_missing_model": (None, ""),
    "030_chat_bad_type": (None, ""),
    "036_chat_image_nonvision": (None, ""),
    "043_generate_suffix_unsupported": (Unsupported, "The model does not support insert."),
    "050_embed": (Unsupported, "The model does not support embeddings."),
    "182_chat_truncate_false": (
        TooLong,
        "This model's maximum context length is 256 tokens, and the request has 2680. Shorten it, or raise `num_ctx` "
        "of the backend.",
    ),
    "184_chat_single_overlong_noshift": (
        TooLong,
        "This model's maximum context length is 64 tokens, and the request has more. Shorten it, or raise `num_ctx` of "
        "the backend.",
    ),
    "262_cold_queue_full_0": (NotReady, "it is loading models, and too many requests wait for that"),
}


@pytest.mark.parametrize("name", RECORDED)
def test_each_recorded_refusal_has_its_meaning(name: str) -> None:
    one, (kind, message) = transcripts()[name], RECORDED[name]

    failure = refusal("ollama", one.status, one.answer.encode(), 64, 7.5)

    assert type(failure) is (kind or type(None))
    assert failure is None or failure.message == message
    if isinstance(failure, NotReady):
        assert failure.retry_after_s == 7.5
    if isinstance(failure, TooLong):
        assert (failure.status, failure.code) == (400, "context_length_exceeded")


UNPACKED = {
    "a text": ("x y", "x y"),
    "lines": ("x\n  y", "x y"),
    "an object": ({"error": "x"}, "x"),
    "a message": ({"error": {"message": "x"}}, "x"),
    "JSON in a text": ('{"error":{"message":"x"}}', "x"),
    "JSON in JSON": ({"error": '{"error":"{\\"error\\":\\"x\\"}"}'}, "x"),
    "half of it": ('{"error":', '{"error":'),
    "a path": ("llama runner: open /usr/lib/ollama/blobs/sha256-1: no", "llama runner: open …: no"),
    "a drive": ("open C:\\Users\\x\\blob: no", "open … no"),
    "nothing": ("", "it failed and gave no reason that can be shown"),
    "a number": (7, "it failed and gave no reason that can be shown"),
}


@pytest.mark.parametrize(("error", "expected"), UNPACKED.values(), ids=UNPACKED)
def test_an_error_is_one_line_fit_for_a_client(error: object, expected: str) -> None:
    assert read(error).text == expected


def test_a_long_error_is_cut() -> None:
    assert len(read("x" * 10_000).text) == 500


def test_what_is_no_json_is_left_to_the_status() -> None:
    assert refusal("ollama", 500, b"<html>", None, None) is None
