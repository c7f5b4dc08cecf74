"""OpenAI's requests as the daemon's: what becomes of each field, what is refused, and what is named as ignored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends.endpoint import ModelFacts
from backends.errors import BackendError, Rejected, Unsupported
from backends.ollama.request import OllamaRequest, translate

HI = [{"role": "user", "content": "hi"}]
CAN_ALL = ModelFacts(abilities=("completion", "embedding", "tools", "thinking", "vision", "insert"))
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
PIXEL = "data:image/png;base64,aGVsbG8="


def asked(
    body: dict[str, Any], operation: str = "chat", facts: ModelFacts | None = CAN_ALL, *, model: str = "m:latest"
) -> OllamaRequest:
    full = {"model": "m", **({"messages": HI} if operation == "chat" else {}), **body}
    data = json.dumps(full).encode()
    return translate(operation, data, engine="ollama", name="m", model=model, facts=facts)


def made(body: dict[str, Any], operation: str = "chat", facts: ModelFacts | None = CAN_ALL) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(asked(body, operation, facts).body)
    return sent


FIELDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "max_tokens": ({"max_tokens": 5}, {"options": {"num_predict": 5}}),
    "max_completion_tokens": ({"max_completion_tokens": 6}, {"options": {"num_predict": 6}}),
    "both bounds": ({"max_tokens": 5, "max_completion_tokens": 6}, {"options": {"num_predict": 6}}),
    "null": ({"max_tokens": None, "temperature": None, "stop": None, "tools": None}, {}),
    "sampling": (
        {"temperature": 0, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "seed": 7, "presence_penalty": 1},
        {
            "options": {
                "temperature": 0,
                "top_p": 0.5,
                "top_k": 3,
                "min_p": 0.1,
                "presence_penalty": 1,
                "seed": 7,
            }
        },
    ),
    "repetition_penalty": ({"repetition_penalty": 1.1}, {"options": {"repeat_penalty": 1.1}}),
    "a whole float": ({"seed": 7.0}, {"options": {"seed": 7}}),
    "stop text": ({"stop": "x"}, {"options": {"stop": ["x"]}}),
    "stop list": ({"stop": ["x", "y"]}, {"options": {"stop": ["x", "y"]}}),
    "n of one": ({"n": 1}, {}),
    "text": ({"response_format": {"type": "text"}}, {}),
    "json": ({"response_format": {"type": "json_object"}}, {"format": "json"}),
    "schema": ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}, {"format": SCHEMA}),
    "tools": ({"tools": [TOOL]}, {"tools": [TOOL]}),
    "tools on their own": ({"tools": [TOOL], "tool_choice": "auto"}, {"tools": [TOOL]}),
    "tools not now": ({"tools": [TOOL], "tool_choice": "none"}, {}),
    "no tools": ({"tools": [], "tool_choice": "auto"}, {}),
    "high": ({"reasoning_effort": "high"}, {"think": "high"}),
    "minimal": ({"reasoning_effort": "minimal"}, {"think": "low"}),
    "none": ({"reasoning_effort": "none"}, {"think": False}),
    "nested effort": ({"reasoning": {"effort": "low"}}, {"think": "low"}),
    "logprobs": ({"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
    "no logprobs": ({"logprobs": False}, {}),
    "streamed": ({"stream": True}, {"stream": True}),
}


@pytest.mark.parametrize(("given", "expected"), FIELDS.values(), ids=FIELDS)
def test_each_field_of_a_chat_has_its_way(given: dict[str, Any], expected: dict[str, Any]) -> None:
    sent = made(given)

    base = {"model": "m:latest", "messages": HI, "stream": False, "truncate": False, "shift": False}
    assert sent == {**base, **expected}


MESSAGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "parts": (
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": "a\nb"},
    ),
    "an image": (
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": PIXEL}}],
        },
        {"role": "user", "content": "a", "images": ["aGVsbG8="]},
    ),
    "developer": ({"role": "developer", "content": "x"}, {"role": "system", "content": "x"}),
    "reasoning": (
        {"role": "assistant", "content": "x", "reasoning": "y"},
        {"role": "assistant", "content": "x", "thinking": "y"},
    ),
    "reasoning_content": (
        {"role": "assistant", "content": None, "reasoning_content": "y"},
        {"role": "assistant", "content": "", "thinking": "y"},
    ),
    "an answer of nothing": ({"role": "assistant", "content": None}, {"role": "assistant", "content": ""}),
    "a refusal": (
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "assistant", "content": "no"},
    ),
    "letters": ({"role": "user", "content": 'zwölf "x" \\ 🙂'}, {"role": "user", "content": 'zwölf "x" \\ 🙂'}),
    "unknown members": ({"role": "user", "content": "x", "name": "n", "audio": None}, {"role": "user", "content": "x"}),
}


@pytest.mark.parametrize(("given", "expected"), MESSAGES.values(), ids=MESSAGES)
def test_each_kind_of_message_has_its_way(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert made({"messages": [given]})["messages"] == [expected]


@pytest.mark.parametrize("arguments", ['{"city": "Paris"}', {"city": "Paris"}], ids=["text", "object"])
def test_a_tools_turn_has_its_name_and_arguments_as_an_object(arguments: object) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    turns = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]

    messages = made({"messages": turns})["messages"]

    function = {"index": 0, "name": "weather", "arguments": {"city": "Paris"}}
    assert messages[0] == {"role": "assistant", "content": "", "tool_calls": [{"function": function, "id": "c1"}]}
    assert messages[1] == {"role": "tool", "content": "sunny", "tool_call_id": "c1", "tool_name": "weather"}


MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "no messages": ({"messages": []}, "messages"),
    "a message that is none": ({"messages": ["hi"]}, "messages"),
    "no role": ({"messages": [{"content": "x"}]}, "messages"),
    "no content": ({"messages": [{"role": "user", "content": None}]}, "messages"),
    "a number": ({"messages": [{"role": "user", "content": 1}]}, "messages"),
    "a part without a type": ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages"),
    "a part without text": ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages"),
    "no base64": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL + "ä"}}]}]},
        "messages",
    ),
    "arguments": (
        {"messages": [{"role": "a", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "no"}}]}]},
        "messages",
    ),
    "temperature": ({"temperature": "hot"}, "temperature"),
    "seed": ({"seed": 1.5}, "seed"),
    "no tokens": ({"max_tokens": 0}, "max_tokens"),
    "the likeliest of none": ({"top_logprobs": 2}, "top_logprobs"),
    "less than none": ({"max_completion_tokens": -1}, "max_completion_tokens"),
    "no tokens at all": ({"max_completion_tokens": 0}, "max_completion_tokens"),
    "a truth": ({"top_k": True}, "top_k"),
    "stop": ({"stop": 1}, "stop"),
    "stops": ({"stop": ["a", 1]}, "stop"),
    "stream": ({"logprobs": 1}, "logprobs"),
    "effort": ({"reasoning_effort": "turbo"}, "reasoning_effort"),
    "format": ({"response_format": {"type": "xml"}}, "response_format"),
    "format without a schema": ({"response_format": {"type": "json_schema"}}, "response_format"),
}


@pytest.mark.parametrize(("given", "param"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused_with_its_name(given: dict[str, Any], param: str) -> None:
    with pytest.raises(Rejected) as caught:
        asked(given)

    assert (caught.value.status, caught.value.param) == (400, param)
    assert caught.value.type == "invalid_request_error"


NAMED = {"type": "function", "function": {"name": "f"}}
IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "several answers": ({"n": 2}, "n"),
    "a named tool": ({"tools": [TOOL], "tool_choice": NAMED}, "tool_choice"),
    "any tool": ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
    "functions": ({"functions": [{"name": "f"}]}, "functions"),
    "an image elsewhere": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]},
        "messages",
    ),
    "sound": ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages"),
}


@pytest.mark.parametrize(("given", "param"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_the_daemon_cannot_do_is_refused_and_another_target_may(given: dict[str, Any], param: str) -> None:
    with pytest.raises(Unsupported) as caught:
        asked(given)

    assert caught.value.param == param


@pytest.mark.parametrize(
    ("given", "param"), [({"tools": [TOOL]}, "tools"), ({"reasoning_effort": "low"}, "reasoning_effort")]
)
def test_what_the_model_cannot_do_is_known_before_it_is_asked(given: dict[str, Any], param: str) -> None:
    with pytest.raises(Unsupported) as caught:
        asked(given, facts=ModelFacts(abilities=("completion",)))

    assert caught.value.param == param
    assert asked(given, facts=None).body  # nothing is known of it: the daemon decides


def test_no_thinking_needs_no_ability() -> None:
    assert "think" not in made({"reasoning_effort": "none"}, facts=ModelFacts(abilities=("completion",)))


def test_the_models_context_and_stay_go_with_every_request() -> None:
    facts = ModelFacts(num_ctx=512, keep_alive_s=-1)

    assert made({"temperature": 1}, facts=facts)["options"] == {"temperature": 1, "num_ctx": 512}
    for operation, body in (("chat", {}), ("text_completion", {"prompt": "a"}), ("embeddings", {"input": "a"})):
        sent = made(body, operation, facts)
        assert (sent["options"]["num_ctx"], sent["keep_alive"], sent["truncate"]) == (512, -1, False)


def test_what_has_no_effect_is_named_once_and_nothing_else_is() -> None:
    given = {"logit_bias": {"5": 1}, "num_ctx": 9, "options": {"num_ctx": 9}, "user": "u", "store": True, "n": 1}
    quiet: dict[str, Any] = {"parallel_tool_calls": True, "audio": None, "extra_body": {}, "modalities": []}

    assert asked({**given, **quiet}).dropped == ("logit_bias", "num_ctx", "options")


def test_only_names_that_a_header_can_carry_are_named_and_not_too_many() -> None:
    many = {f"field{number}": 1 for number in range(150)}

    assert asked({"a\r\nb": 1, "zwölf": 1, "": 1}).dropped == ()
    assert len(asked(many).dropped) == 100


def test_a_completion_goes_on_with_the_prompt_as_it_is() -> None:
    sent = made({"prompt": "The sky is", "max_tokens": 3, "logprobs": 2}, "text_completion")

    assert sent == {
        "model": "m:latest",
        "prompt": "The sky is",
        "raw": True,
        "stream": False,
        "truncate": False,
        "shift": False,
        "logprobs": True,
        "top_logprobs": 2,
        "options": {"num_predict": 3},
    }
    assert "raw" not in made({"prompt": "a", "suffix": "b"}, "text_completion")
    assert made({"prompt": ["a"]}, "text_completion")["prompt"] == "a"


PROMPTS: dict[str, tuple[dict[str, Any], type[BackendError]]] = {
    "several": ({"prompt": ["a", "b"]}, Unsupported),
    "tokens": ({"prompt": [1, 2]}, Unsupported),
    "empty": ({"prompt": ""}, Rejected),
    "none": ({"prompt": None}, Rejected),
    "echo": ({"prompt": "a", "echo": True}, Unsupported),
    "best of": ({"prompt": "a", "best_of": 3}, Unsupported),
}


@pytest.mark.parametrize(("given", "kind"), PROMPTS.values(), ids=PROMPTS)
def test_a_prompt_that_the_daemon_cannot_take_is_refused(given: dict[str, Any], kind: type[BackendError]) -> None:
    with pytest.raises(kind):
        asked(given, "text_completion")


def test_embeddings_are_asked_for_as_a_list() -> None:
    assert made({"input": "a", "dimensions": 2}, "embeddings") == {
        "model": "m:latest",
        "input": ["a"],
        "dimensions": 2,
        "truncate": False,
    }
    assert asked({"input": ["a", "b"], "encoding_format": "base64"}, "embeddings").is_base64


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"input": [1, 2]}, Unsupported),
        ({"input": []}, Rejected),
        ({"input": None}, Rejected),
        ({"input": "a", "encoding_format": "x"}, Rejected),
    ],
    ids=["tokens", "nothing", "null", "format"],
)
def test_what_cannot_be_embedded_is_refused(given: dict[str, Any], kind: type[BackendError]) -> None:
    with pytest.raises(kind):
        asked(given, "embeddings")


def test_a_model_that_only_writes_is_not_asked_for_embeddings_nor_the_reverse() -> None:
    for operation, body, abilities in (
        ("embeddings", {"input": "a"}, ("completion", "tools")),
        ("chat", {}, ("embedding",)),
        ("text_completion", {"prompt": "a"}, ("embedding",)),
    ):
        with pytest.raises(Unsupported) as refused:
            asked(body, operation, ModelFacts(abilities=abilities))
        assert refused.value.param == "model"
        for unknown in ((), None):  # an old daemon that says nothing of it
            assert asked(body, operation, ModelFacts(abilities=unknown)).operation == operation


def test_every_request_has_the_same_shift() -> None:
    assert made({}, facts=ModelFacts(shift=True))["shift"] is True
    assert made({"shift": True}, facts=ModelFacts())["shift"] is False


def test_a_model_that_sees_no_pictures_is_not_sent_any() -> None:
    seen = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}]

    with pytest.raises(Unsupported) as refused:
        asked({"messages": seen}, facts=ModelFacts(abilities=("completion",)))

    assert (refused.value.param, "see pictures" in refused.value.message) == ("messages", True)
    for abilities in (None, (), ("completion", "vision")):
        assert made({"messages": seen}, facts=ModelFacts(abilities=abilities))["messages"][0]["images"]
