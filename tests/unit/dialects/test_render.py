"""The prompt that an engine makes of a chat: what each kind is asked, and what the client gets."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.dialects.tasks.llama_cpp import Step, Steps
from app.dialects.tasks.render import rendered, rendered_by_daemon
from backends.errors import Broken, Rejected
from backends.kinds import PROFILES

CHAT = msgspec.json.encode(
    {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [],
        "max_tokens": 5,
        "chat_template_kwargs": {"enable_thinking": False},
    }
)


def run(steps: Steps, *answers: object) -> tuple[list[Step], dict[str, Any]]:
    """The requests, and the client's response."""
    asked = [next(steps)]
    try:
        for answer in answers:
            step = steps.send(msgspec.json.encode(answer))
            asked.append(step)
    except StopIteration as end:
        return asked, msgspec.json.decode(end.value.body)
    raise AssertionError(f"it asks for more: {asked[-1]}")


def test_vllm_is_asked_for_tokens_and_for_their_text() -> None:
    asked, told = run(rendered(CHAT, PROFILES["vllm"], "e"), {"tokens": [1, 2], "count": 2}, {"prompt": "<s>Hi"})

    assert told == {"object": "prompt", "prompt": "<s>Hi", "tokens": [1, 2], "backend": "e"}
    assert [step.path for step in asked] == ["/tokenize", "/detokenize"]
    assert msgspec.json.decode(asked[0].body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [],
        "chat_template_kwargs": {"enable_thinking": False},
    }


def test_llama_cpp_is_asked_for_the_text_and_for_its_tokens_as_it_splits_a_chat() -> None:
    asked, told = run(rendered(CHAT, PROFILES["llama_cpp"], "e"), {"prompt": "Hi"}, {"tokens": [1]})

    assert (told["prompt"], told["tokens"]) == ("Hi", [1])
    assert msgspec.json.decode(asked[1].body) == {"content": "Hi", "add_special": True, "parse_special": True}


def test_a_daemon_is_asked_not_to_write() -> None:
    body = msgspec.json.encode({"model": "m", "messages": [], "stream": True, "options": {"num_ctx": 9}})

    asked, told = run(rendered_by_daemon("/api/chat", body, "e"), {"_debug_info": {"rendered_template": "Hi"}})

    assert (told["prompt"], told["tokens"]) == ("Hi", None)
    assert msgspec.json.decode(asked[0].body) == {
        "model": "m",
        "messages": [],
        "stream": False,
        "options": {"num_ctx": 9, "num_predict": 1},
        "_debug_render_only": True,
    }


def test_a_daemon_that_does_not_know_the_question_is_too_old() -> None:
    body = msgspec.json.encode({"model": "m", "messages": []})

    with pytest.raises(Rejected, match="too old") as caught:
        run(rendered_by_daemon("/api/chat", body, "e"), {"message": {"content": "Hello"}})

    assert caught.value.status == 501


def test_an_engine_that_does_not_tell_is_a_501() -> None:
    with pytest.raises(Rejected, match="does not tell") as caught:
        run(rendered(CHAT, PROFILES["remote"], "e"))

    assert caught.value.status == 501


def test_what_is_no_answer_is_the_engines_failure() -> None:
    with pytest.raises(Broken):
        run(rendered(CHAT, PROFILES["llama_cpp"], "e"), {"prompt": 5})
