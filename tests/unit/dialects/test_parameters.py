"""What is done to a request's parameters: refused, set as configured, adjusted to what an engine takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.dialects import json_members
from app.dialects.parameters import adjust, judge
from app.dialects.parameters.adjust import TargetEngine
from app.dialects.parameters.answer_limit import Fit
from app.dialects.parameters.case import RequestCase
from app.errors import Problem
from app.relay.http import json_body
from app.table import Rules
from backends.endpoint import FAILED, ModelFacts
from backends.kinds import PROFILES

AS_IT_IS = Rules()
NO_BOUND = Fit(None)
KNOWN = ModelFacts(context_length=8192)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def body_of(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [], **fields}).encode()


def sent(
    body: bytes,
    rules: Rules = AS_IT_IS,
    kind: str = "vllm",
    operation: str = "chat",
    facts: ModelFacts | None = KNOWN,
    fit: Fit | None = None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the engine gets beside the model and the messages, and what the client is told of it."""
    engine = TargetEngine(operation, PROFILES[kind], facts)
    changed = adjust.changes(json_body.opened(body)[0], body, rules, engine, fit)
    members: dict[str, Any] = json.loads(json_members.edit(body, changed.members))
    return {name: value for name, value in members.items() if name not in ("model", "messages")}, changed.names


LENIENT: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "nothing": ({}, {}, ()),
    "usual": (
        {"temperature": 0.5, "top_p": 0.9, "max_tokens": 64},
        {"temperature": 0.5, "top_p": 0.9, "max_tokens": 64},
        (),
    ),
    "top_p 0": ({"top_p": 0}, {"top_p": 1}, ("top_p",)),
    "top_p 0.0": ({"top_p": 0.0}, {"top_p": 1}, ("top_p",)),
    "top_p below 0": ({"top_p": -1}, {"top_p": -1}, ()),
    "top_p no number": ({"top_p": "0"}, {"top_p": "0"}, ()),
    "top_p false": ({"top_p": False}, {"top_p": False}, ()),
    "top_p null": ({"top_p": None}, {"top_p": None}, ()),
    "a token less than the context": ({"max_tokens": 8191}, {"max_tokens": 8191}, ()),
    "the context's length": ({"max_tokens": 8192}, {}, ("max_tokens",)),
    "far beyond": ({"max_tokens": 1_000_000_000}, {}, ("max_tokens",)),
    "beyond 64 bits": ({"max_tokens": 10**30}, {}, ("max_tokens",)),
    "by its new name": ({"max_completion_tokens": 9000}, {}, ("max_completion_tokens",)),
    "both": ({"max_tokens": 9000, "max_completion_tokens": 5}, {"max_completion_tokens": 5}, ("max_tokens",)),
    "empty tools": ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, {}, ("tools",)),
    "tools": ({"tools": [TOOL], "tool_choice": "auto"}, {"tools": [TOOL], "tool_choice": "auto"}, ()),
    "a choice of none": ({"tool_choice": "auto"}, {}, ("tool_choice",)),
    "no call": ({"tool_choice": "none"}, {"tool_choice": "none"}, ()),
    "of others": ({"send_reasoning": True, "reasoning": True}, {"send_reasoning": True, "reasoning": True}, ()),
}


@pytest.mark.parametrize(("asked", "expected", "names"), LENIENT.values(), ids=LENIENT)
@pytest.mark.parametrize("kind", ["vllm", "llama_cpp", "ollama"])
def test_what_a_local_engine_would_refuse_is_adjusted_and_named(
    kind: str, asked: dict[str, Any], expected: dict[str, Any], names: tuple[str, ...]
) -> None:
    assert sent(body_of(**asked), kind=kind) == (expected, names)


@pytest.mark.parametrize(("asked", "_expected", "_names"), LENIENT.values(), ids=LENIENT)
def test_strict_is_sent_as_it_is_and_remote_engines_are_strict(
    asked: dict[str, Any], _expected: object, _names: object
) -> None:
    assert sent(body_of(**asked), Rules(normalize="strict")) == (asked, ())
    assert sent(body_of(**asked), kind="remote") == (asked, ())


def test_a_remote_engine_can_be_treated_like_a_local_one() -> None:
    assert sent(body_of(top_p=0), Rules(normalize="lenient"), "remote") == ({"top_p": 1}, ("top_p",))


def test_a_bound_stays_where_the_context_is_not_known() -> None:
    assert sent(body_of(max_tokens=8192), facts=None) == ({"max_tokens": 8192}, ())
    assert sent(body_of(max_tokens=8192), facts=ModelFacts()) == ({"max_tokens": 8192}, ())


def test_the_second_try_has_no_bound() -> None:
    assert sent(body_of(max_tokens=64, top_p=1), fit=NO_BOUND) == ({"top_p": 1}, ("max_tokens",))


TEXT: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "beyond": ({"max_tokens": 9000}, {"max_tokens": 8192}, ("max_tokens",)),
    "the length": ({"max_tokens": 8192}, {"max_tokens": 8192}, ()),
    "less": ({"max_tokens": 8}, {"max_tokens": 8}, ()),
    "none": ({}, {}, ()),
    "by the other name": ({"max_completion_tokens": 5}, {"max_tokens": 5}, ("max_completion_tokens",)),
    "beyond by the other name": (
        {"max_completion_tokens": 9000, "max_tokens": None},
        {"max_tokens": 8192},
        ("max_completion_tokens",),
    ),
    "both": (
        {"max_completion_tokens": 5, "max_tokens": 6},
        {"max_completion_tokens": 5, "max_tokens": 6},
        (),
    ),
}


@pytest.mark.parametrize(("asked", "expected", "names"), TEXT.values(), ids=TEXT)
def test_a_texts_bound_is_the_context_at_most_under_the_one_name_that_every_engine_knows(
    asked: dict[str, Any], expected: dict[str, Any], names: tuple[str, ...]
) -> None:
    assert sent(body_of(**asked), operation="text_completion") == (expected, names)


def test_the_second_try_for_a_text_has_no_bound() -> None:
    again = sent(body_of(max_tokens=64), operation="text_completion", fit=NO_BOUND)

    assert again == ({"max_tokens": None}, ("max_tokens",))


def test_nothing_but_generation_is_touched() -> None:
    rules = Rules(overrides={"temperature": 0})

    assert sent(body_of(top_p=0, max_tokens=9000), rules, operation="embeddings")[1] == ()


SET = Rules(
    defaults={"temperature": 0.2, "max_tokens": 100, "repetition_penalty": 1.1},
    overrides={"top_p": 0.5, "seed": 7, "typical_p": 0.9},
)


def test_defaults_fill_in_and_overrides_replace_and_only_what_was_replaced_is_named() -> None:
    asked = body_of(temperature=None, top_p=0, seed=1, max_completion_tokens=5, repetition_penalty=2)

    assert sent(asked, SET) == (
        {"temperature": 0.2, "top_p": 0.5, "seed": 7, "max_completion_tokens": 5, "repetition_penalty": 2},
        ("top_p", "seed"),
    )


@pytest.mark.parametrize(
    ("kind", "name", "has_typical"),
    [("vllm", "repetition_penalty", False), ("llama_cpp", "repeat_penalty", True), ("ollama", "repeat_penalty", True)],
)
def test_a_sampling_parameter_has_the_engines_own_name(kind: str, name: str, has_typical: bool) -> None:
    members, names = sent(body_of(), SET, kind)

    assert members == {"temperature": 0.2, "max_tokens": 100, name: 1.1, "top_p": 0.5, "seed": 7} | (
        {"typical_p": 0.9} if has_typical else {}
    )
    assert names == ()


def test_an_override_goes_before_both_names_of_a_bound() -> None:
    rules = Rules(overrides={"max_tokens": 10}, defaults={"max_tokens": 99})

    assert sent(body_of(max_completion_tokens=50), rules) == ({"max_tokens": 10}, ("max_completion_tokens",))
    assert sent(body_of(max_tokens=50), rules) == ({"max_tokens": 10}, ("max_tokens",))


def test_a_configured_bound_beyond_the_context_is_left_out_too() -> None:
    assert sent(body_of(), Rules(defaults={"max_tokens": 100_000})) == ({}, ("max_tokens",))


def test_strict_has_defaults_and_overrides_too() -> None:
    rules = Rules(normalize="strict", overrides={"temperature": 0})

    assert sent(body_of(temperature=1), rules) == ({"temperature": 0}, ("temperature",))


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "template": (
        {"chat_template": "{% for x in range(9999999999) %}{% endfor %}"},
        "chat_template",
        "parameter_refused",
    ),
    "processor": ({"mm_processor_kwargs": {"num_crops": 1e9}}, "mm_processor_kwargs", "parameter_refused"),
    "media": ({"media_io_kwargs": {"video": {"num_frames": -1}}}, "media_io_kwargs", "parameter_refused"),
    "transfer": ({"kv_transfer_params": {"remote_host": "10.0.0.1"}}, "kv_transfer_params", "parameter_refused"),
    "unlisted": ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs", "parameter_refused"),
    "no object": ({"chat_template_kwargs": ["x"]}, "chat_template_kwargs", "invalid_type"),
    "too large": ({"chat_template_kwargs": {"thinking": "x" * 70_000}}, "chat_template_kwargs", "invalid_type"),
    "choices": ({"n": 129}, "n", "parameter_refused"),
    "choices as text": ({"n": " 1e6 "}, "n", "parameter_refused"),
    "choices beyond all bounds": ({"n": int("9" * 63)}, "n", "parameter_refused"),
    "choices of many digits": ({"n": "9" * 70}, "n", "parameter_refused"),
    "best of": ({"best_of": 1e9}, "best_of", "parameter_refused"),
}


@pytest.mark.parametrize(("asked", "param", "code"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("normalize", ["strict", "lenient", None])
def test_what_would_harm_an_engine_is_refused_with_its_name_however_lenient(
    normalize: str | None, asked: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(Problem) as caught:
        adjust.check(json_body.opened(body_of(**asked))[0], Rules(normalize=normalize), 128)

    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
    assert "range" not in caught.value.message


def test_a_name_that_is_spelled_with_escapes_is_the_same_name() -> None:
    with pytest.raises(Problem) as caught:
        adjust.check(json_body.opened(rb'{"model":"m","chat\u005ftemplate":"x"}')[0], Rules(), 128)

    assert caught.value.param == "chat_template"


TAKEN: dict[str, dict[str, Any]] = {
    "thinking": {"chat_template_kwargs": {"enable_thinking": False, "reasoning_effort": "low"}},
    "nothing": {"chat_template_kwargs": {}},
    "null": {"chat_template": None, "chat_template_kwargs": None, "mm_processor_kwargs": None, "n": None},
    "choices": {"n": 128, "best_of": 128},
    "not a number": {"n": "many"},  # the engine's to refuse
}


@pytest.mark.parametrize("asked", TAKEN.values(), ids=TAKEN)
def test_what_is_harmless_passes(asked: dict[str, Any]) -> None:
    adjust.check(json_body.opened(body_of(**asked))[0], Rules(), 128)


def test_the_operator_says_what_the_template_may_be_told() -> None:
    asked = json_body.opened(body_of(chat_template_kwargs={"style": "terse"}))[0]

    adjust.check(asked, Rules(template_kwargs=("style",)), 128)
    with pytest.raises(Problem, match="can set: nothing"):
        adjust.check(asked, Rules(template_kwargs=()), 128)


NO_TOOLS = TargetEngine("chat", PROFILES["llama_cpp"], ModelFacts(capabilities={"tools": FAILED}))
NAMED = {"type": "function", "function": {"name": "a_tool_with_quite_a_long_name_that_goes_on_and_on_for_a_while"}}


@pytest.mark.parametrize(
    ("choice", "is_ignored"),
    [("required", True), (NAMED, True), ({}, True), ("auto", False), ("none", False), (None, False)],
)
def test_a_tool_that_must_be_called_is_noticed_where_the_template_has_none(choice: object, is_ignored: bool) -> None:
    asked = json_body.opened(body_of(tools=[TOOL], tool_choice=choice))[0]

    assert adjust.ignores_tools(asked, NO_TOOLS) is is_ignored
    assert not adjust.ignores_tools(asked, TargetEngine("chat", PROFILES["llama_cpp"]))
    assert not adjust.ignores_tools(asked, TargetEngine("chat", PROFILES["vllm"], NO_TOOLS.facts))
    assert not adjust.ignores_tools(json_body.opened(body_of())[0], NO_TOOLS)


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_tools_that_the_template_has_no_place_for_are_left_out_and_named(choice: object) -> None:
    fields = {"tools": [TOOL], "tool_choice": choice, "parallel_tool_calls": True, "user": "u"}
    asked = json_body.opened(body_of(**fields))[0]
    given = judge.given(json_body.opened(body_of(**fields))[1])

    changed = adjust.changes(asked, body_of(**fields), Rules(), NO_TOOLS)
    judged = changed.judged(RequestCase("engine", PROFILES["llama_cpp"], "chat", given))

    left_out = {"tools": None, "tool_choice": None, "parallel_tool_calls": None}
    assert (changed.members, changed.names, changed.dropped) == (left_out, (), ("tools",))
    assert judged.dropped == ("tools", "user")
    assert adjust.changes(asked, body_of(**fields), Rules(), TargetEngine("chat", PROFILES["llama_cpp"])).dropped == ()
    assert (
        adjust.changes(json_body.opened(body_of(tools=None))[0], body_of(tools=None), Rules(), NO_TOOLS).dropped == ()
    )


def test_a_bound_that_an_engine_refused_becomes_what_fits_and_a_smaller_one_stays() -> None:
    asked = {"max_tokens": 500, "max_completion_tokens": 3}

    assert sent(body_of(**asked), fit=Fit(90)) == ({"max_tokens": 90, "max_completion_tokens": 3}, ("max_tokens",))
    assert sent(body_of(max_tokens=500), operation="text_completion", fit=Fit(90)) == (
        {"max_tokens": 90},
        ("max_tokens",),
    )


def test_a_bound_is_the_largest_that_was_told_and_only_a_sound_number() -> None:
    rules = Rules(defaults={"max_tokens": 7})

    assert adjust.bound(json_body.opened(body_of(max_tokens=3, max_completion_tokens=5))[0], AS_IT_IS) == 5
    assert adjust.bound(json_body.opened(body_of())[0], rules) == 7
    for wrong in (None, -7, 0, 1.5, "9", True):
        assert adjust.bound(json_body.opened(body_of(max_tokens=wrong))[0], AS_IT_IS) is None


@pytest.mark.parametrize(("n", "choices"), [(3, 3), (None, 1), (0, 1), ("x", 1), (True, 1), (1.5, 1)])
def test_choices_are_counted_only_by_a_sound_number(n: object, choices: int) -> None:
    assert adjust.choices(json_body.opened(body_of(n=n))[0]) == choices
