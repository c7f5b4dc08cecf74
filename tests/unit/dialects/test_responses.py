"""OpenAI's responses as chats, and chat answers as responses, wherever the engine's stream is cut."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.dialects.client_api import TranslatedRequest
from app.dialects.openai.stream_reader import DONE
from app.dialects.responses.request import ResponsesApi
from app.dialects.responses.response import ResponsesEncoder
from app.dialects.usage import Usage
from app.errors import Problem, not_found
from tests.fakes import wire
from tests.rigs.foreign_streams import (
    ALTERNATING,
    BOTH_CALLS,
    CALLS,
    STREAMS,
    call,
    copied_by_a_part,
    encoded,
    encoded_whole,
    event,
    unfinished,
    whole,
)
from tests.rigs.read_answer import pieces

NOW = 1795334421.5
COST = Usage(12, 4, "length")
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": True}


def asked(**fields: Any) -> TranslatedRequest:
    request = {"model": "m", "input": "hi", **fields}
    return ResponsesApi(lambda: NOW).translate(json.dumps(request).encode(), "abc")


def body(ask: TranslatedRequest) -> Any:
    return json.loads(msgspec.json.encode(ask.fields))


def messages(*items: Any, **fields: Any) -> Any:
    return body(asked(input=list(items), **fields))["messages"]


def spoken(**echo: Any) -> ResponsesEncoder:
    return ResponsesEncoder("mine", "abc", lambda: NOW, echo)


def events(out: bytes) -> list[Any]:
    all_events = []
    for each in out.decode().split("\n\n")[:-1]:
        name, data = each.split("\n")
        all_events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {all_events[-1]['type']}"
    assert [each["sequence_number"] for each in all_events] == list(range(len(all_events)))
    return all_events


# -- requests


def test_a_text_is_a_chat() -> None:
    ask = asked(instructions="Be brief.", max_output_tokens=9, temperature=0, top_p=0.5, stream=True, store=False)

    assert ask.path == "/v1/chat/completions"
    assert body(ask) == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "temperature": 0,
        "top_p": 0.5,
        "stream": True,
    }


def test_a_turn_of_the_model_is_one_message() -> None:
    told = messages(
        {"role": "user", "content": "add"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Sure."}]},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":7}'},
        {"type": "function_call", "call_id": "c2", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "12"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "0"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}]},
        {"type": "function_call", "call_id": "c3", "name": "add", "arguments": "{}"},
    )

    assert [message["role"] for message in told] == ["user", "assistant", "tool", "tool", "assistant"]
    assert (told[1]["content"], told[1]["reasoning"], told[1]["reasoning_content"]) == ("Sure.", "hm", "hm")
    assert [each["id"] for each in told[1]["tool_calls"]] == ["c1", "c2"]
    assert told[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a":7}'}
    assert told[2:4] == [
        {"role": "tool", "tool_call_id": "c1", "content": "12"},
        {"role": "tool", "tool_call_id": "c2", "content": "0"},
    ]
    assert (told[4]["content"], told[4]["reasoning"]) == ("", "so")


def test_orders_at_the_beginning_are_one_message() -> None:
    told = messages({"role": "developer", "content": "b"}, {"role": "user", "content": "hi"}, instructions="a")

    assert told == [{"role": "system", "content": "a\n\nb"}, {"role": "user", "content": "hi"}]


def test_parts_are_parts() -> None:
    (told,) = messages(
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        }
    )

    assert told["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, {}),
        ("required", {"tool_choice": "required"}),
        ({"type": "function", "name": "add"}, {"tool_choice": {"type": "function", "function": {"name": "add"}}}),
    ],
)
def test_tools_are_functions(choice: Any, sent: dict[str, Any]) -> None:
    translated = body(asked(tools=[TOOL], tool_choice=choice, parallel_tool_calls=False))

    function = {"name": "add", "parameters": {"type": "object"}, "strict": True}
    assert translated["tools"] == [{"type": "function", "function": function}]
    assert translated["parallel_tool_calls"] is False
    assert ({"tool_choice": translated["tool_choice"]} if "tool_choice" in translated else {}) == sent


@pytest.mark.parametrize(
    ("form", "sent"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}},
        ),
    ],
)
def test_a_text_format_is_a_response_format(form: dict[str, Any], sent: Any) -> None:
    assert body(asked(text={"format": form})).get("response_format") == sent


@pytest.mark.parametrize(("effort", "think"), [("none", False), ("low", "low"), ("xhigh", "xhigh"), (None, None)])
def test_effort_is_thinking(effort: str | None, think: bool | str | None) -> None:
    assert asked(reasoning={"effort": effort}).extras.get("think") == think


def test_what_nobody_heeds_is_named() -> None:
    ask = asked(
        truncation="auto",
        service_tier="priority",
        include=["reasoning.encrypted_content"],
        text={"verbosity": "low"},
        reasoning={"summary": "auto"},
        user="u",
        seed=1,
    )

    named = ("truncation", "service_tier", "user", "include", "text.verbosity", "reasoning.summary", "seed")
    assert ask.dropped == named
    assert asked(truncation="disabled", include=["message.output_text.logprobs"]).dropped == ()


def test_a_request_that_may_wait_is_one_in_the_dialect_of_engines_too() -> None:
    ask = asked(service_tier="flex")

    assert body(ask)["service_tier"] == "flex"
    assert ask.dropped == ()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"input": None}, "'input' is missing"),
        ({"input": 7}, "'input' has the wrong type"),
        ({"max_output_tokens": 0}, "1 or more, and is 0"),
        ({"max_output_tokens": -7}, "1 or more, and is -7"),
        ({"store": True}, "'store' is not supported"),
        ({"previous_response_id": "r"}, "'previous_response_id' is not supported"),
        ({"input": [{"role": "tool", "content": "x"}]}, "role"),
        ({"input": [{"role": "user", "content": 7}]}, "list of parts"),
        ({"input": [{"role": "user", "content": [{"type": "video"}]}]}, "'video'"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "a file"),
        ({"input": [{"role": "system", "content": [{"type": "input_image", "image_url": "u"}]}]}, "only text"),
        ({"input": [{"type": "item_reference", "id": "i"}]}, "'item_reference'"),
        ({"input": [{"type": 7}]}, "type of an item"),
        ({"input": [{"type": "function_call", "name": "f", "call_id": "c", "arguments": 7}]}, "'arguments' of an item"),
        *(
            ({"input": [{"type": "reasoning", name: value}]}, "reasoning item are lists")
            for name in ("summary", "content")
            for value in (5, "abc", ["abc"], {"text": "abc"})
        ),
        ({"tools": [{"type": "function"}]}, "a function tool has a 'name'"),
        ({"tools": [{"type": "custom", "name": ""}]}, "a custom tool has a 'name'"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"reasoning": {"effort": "hard"}}, "reasoning.effort"),
    ],
)
def test_what_cannot_be_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem, match=said) as refused:
        asked(**fields)

    assert refused.value.status == 400


# -- answers


@pytest.mark.parametrize("name", STREAMS)
def test_one_cut_anywhere_changes_nothing(name: str) -> None:
    data = STREAMS[name]
    expected = encoded(spoken(), [data])

    for cut in range(1, len(data)):
        assert encoded(spoken(), [data[:cut], data[cut:]]) == expected


@settings(max_examples=100)
@given(st.sampled_from(sorted(STREAMS)), st.lists(st.integers(1, 400), min_size=1, max_size=60))
def test_random_pieces_change_nothing(name: str, sizes: list[int]) -> None:
    data = STREAMS[name]

    assert encoded(spoken(), pieces(data, sizes)) == encoded(spoken(), [data])


@pytest.mark.parametrize("name", ["vllm", "thought", "calls"])
def test_a_stream_ends_with_the_response_that_a_whole_answer_is(name: str) -> None:
    said = json.loads(encoded_whole(spoken(instructions="x"), whole(name), COST))
    ended = events(encoded(spoken(instructions="x"), [STREAMS[name]]))[-1]["response"]

    for each in (said, ended):
        for item in each["output"]:
            item["status"] = "-"  # whether the last one is complete only a stream tells
    assert ended == said
    assert said["usage"]["total_tokens"] == 16
    assert said["store"] is False
    assert said["instructions"] == "x"


def test_items_are_added_written_and_done_one_after_the_other() -> None:
    all_events = events(encoded(spoken(), [STREAMS["calls"]]))

    kinds = [each["type"].removeprefix("response.") for each in all_events]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    weather = all_events[14]["item"]
    assert (weather["call_id"], weather["name"], weather["arguments"]) == ("call_a", "get_weather", '{"city": "Köln"}')
    assert [each["output_index"] for each in all_events if "output_index" in each] == [0] * 6 + [1] * 3 + [2] * 2 + [
        1
    ] * 2 + [2] * 2


def test_thinking_is_an_item_of_its_own() -> None:
    last = events(encoded(spoken(), [STREAMS["thought"]]))[-1]["response"]

    reasoning, message = last["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Let me think."}]
    assert message["content"][0]["text"] == "Twelve."
    assert last["status"] == "completed"


def test_what_was_cut_is_incomplete() -> None:
    last = events(encoded(spoken(), [STREAMS["cut call"]]))[-1]

    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in last["response"]["output"]] == ["completed", "incomplete"]


def test_parts_of_several_calls_may_alternate() -> None:
    mixed = [
        *CALLS[:2],
        event(call(1, "call_b", "get_time")),
        event(call(0, arguments='{"city":')),
        event(call(1, arguments='{"at"')),
        event(call(0, arguments=' "Köln"}')),
        event(call(1, arguments=": 1}")),
        event({}, "tool_calls"),
    ]

    all_events = events(encoded(spoken(), [b"".join(map(wire.sse, mixed)) + DONE]))

    _, first, second = all_events[-1]["response"]["output"]
    assert (first["name"], first["arguments"]) == ("get_weather", '{"city": "Köln"}')
    assert (second["name"], second["arguments"]) == ("get_time", '{"at": 1}')
    for item in (first, second):
        written = [each["delta"] for each in all_events if each.get("item_id") == item["id"] and "delta" in each]
        assert "".join(written) == item["arguments"]


@pytest.mark.parametrize("arguments", ["", None])
def test_a_call_without_arguments_has_an_empty_object(arguments: str | None) -> None:
    begun = event(call(0, "call_a", "get_time"))
    begun["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] = arguments
    stream = b"".join(map(wire.sse, [begun, event({}, "tool_calls")])) + DONE
    called = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [called]}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}

    streamed = events(encoded(spoken(), [stream]))

    done = next(each for each in streamed if each["type"] == "response.function_call_arguments.done")
    assert done["arguments"] == streamed[-1]["response"]["output"][0]["arguments"] == "{}"
    assert json.loads(encoded_whole(spoken(), wire.dumps(answer), COST))["output"][0]["arguments"] == "{}"


@pytest.mark.parametrize("name", ALTERNATING)
def test_calls_whose_parts_alternate_are_an_item_each(name: str) -> None:
    out = events(encoded(spoken(), [b"".join(map(wire.sse, ALTERNATING[name]))]))

    items = [item for item in out[-1]["response"]["output"] if item["type"] == "function_call"]
    assert [(item["call_id"], item["name"], item["arguments"]) for item in items] == BOTH_CALLS
    assert out[-1]["type"] == "response.completed"
    deltas = {item["id"]: "" for item in items}
    for each in out:
        if each["type"] == "response.function_call_arguments.delta":
            deltas[each["item_id"]] += each["delta"]
    assert list(deltas.values()) == [arguments for _, _, arguments in BOTH_CALLS]


@pytest.mark.parametrize("finish", ["length", "content_filter", "max_tokens", "whatever"])
def test_the_last_item_of_a_whole_answer_that_was_cut_is_incomplete(finish: str) -> None:
    answer = json.loads(whole("calls"))
    answer["choices"][0]["finish_reason"] = finish

    said = json.loads(encoded_whole(spoken(), wire.dumps(answer), COST))

    assert said["status"] == "incomplete"
    assert [item["status"] for item in said["output"]] == ["completed", "completed", "incomplete"]


def test_another_part_of_a_call_does_not_copy_the_ones_before() -> None:
    assert copied_by_a_part(spoken()) < 100_000


def test_details_of_usage_are_told() -> None:
    counts = {
        "prompt_tokens": 12,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    answer = json.loads(whole("vllm")) | {"usage": counts}

    usage = json.loads(encoded_whole(spoken(), wire.dumps(answer), COST))["usage"]

    assert usage["input_tokens_details"]["cached_tokens"] == 8
    assert usage["output_tokens_details"] == {"reasoning_tokens": 3}


def test_failures_have_openais_shape_and_no_end_follows() -> None:
    encoder = spoken()
    begun = unfinished(encoder)

    all_events = events(begun + encoder.failed(not_found()))

    assert all_events[-1]["error"] == json.loads(encoder.refused(not_found()))["error"]
    assert (all_events[-1]["type"], all_events[-1]["code"]) == ("error", "route_not_found")
    assert not {"response.completed", "response.incomplete"} & {each["type"] for each in all_events}
    assert encoder.waiting("m (starting)") == b": waiting for m (starting)\n\n"


def test_a_refusal_names_the_field_that_this_dialect_has() -> None:
    said = Problem(400, "invalid_request", "'max_tokens' must be 1 or more.", param="max_tokens")

    told = json.loads(spoken().refused(said))["error"]

    assert (told["param"], told["message"]) == ("max_output_tokens", "'max_output_tokens' must be 1 or more.")
