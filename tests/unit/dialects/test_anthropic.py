"""Anthropic's requests as OpenAI's, and OpenAI's answers as Anthropic's events, wherever the engine's stream is cut."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.dialects.anthropic.request import AnthropicMessagesApi
from app.dialects.anthropic.response import AnthropicEncoder
from app.dialects.client_api import TranslatedRequest
from app.dialects.usage import Usage
from app.errors import Problem, not_found, shutting_down
from tests.fakes import wire
from tests.rigs.foreign_streams import (
    ALTERNATING,
    BOTH_CALLS,
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

COST = Usage(12, 4, "length")
USAGE = {
    "input_tokens": 12,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 4,
}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
RESULT = {"type": "tool_result", "tool_use_id": "i"}
USE = {"type": "tool_use", "id": "i", "name": "add"}
NOTE = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "note"}}
TOOL = {"name": "add", "description": "Adds.", "input_schema": {"type": "object"}}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def asked(*, counts: bool = False, **fields: Any) -> TranslatedRequest:
    request = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **fields}
    return AnthropicMessagesApi(counts=counts).translate(json.dumps(request).encode(), "abc")


def body(ask: TranslatedRequest) -> Any:
    return json.loads(msgspec.json.encode(ask.fields))


def messages(*said: Any, **fields: Any) -> Any:
    """OpenAI's messages for these of Anthropic's, each a role and a content."""
    turns = [{"role": role, "content": content} for role, content in said]
    return body(asked(messages=turns, **fields))["messages"]


def spoken(*stops: str) -> AnthropicEncoder:
    return AnthropicEncoder("mine", "abc", stops)


def events(out: bytes) -> list[Any]:
    """The data of each event; its name is the data's type."""
    events = []
    for each in out.decode().split("\n\n")[:-1]:
        name, data = each.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def built(out: bytes) -> tuple[list[Any], Any]:
    """The blocks that the events build, and the last delta of the message."""
    blocks: list[Any] = []
    ended: Any = None
    for each in events(out):
        match each:
            case {"type": "content_block_start", "index": index, "content_block": block}:
                assert index == len(blocks)
                blocks.append({**block, "parts": ""})
            case {"type": "content_block_delta", "index": index, "delta": delta}:
                assert index == len(blocks) - 1
                blocks[-1]["parts"] += next(value for key, value in delta.items() if key != "type")
            case {"type": "message_delta"}:
                ended = each
    return blocks, ended


# -- requests


def test_a_message_is_a_chat() -> None:
    ask = asked(stream=True, temperature=0, top_p=0.5, stop_sequences=["x"])

    assert ask.path == "/v1/chat/completions"
    assert body(ask) == {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "stream": True,
        "temperature": 0,
        "top_p": 0.5,
        "stop": ["x"],
    }


def test_what_the_system_says_comes_first() -> None:
    told = messages(
        ("user", "hi"), system=[{"type": "text", "text": "a", "cache_control": {}}, {"type": "text", "text": "b"}]
    )

    assert told == [{"role": "system", "content": "a\nb"}, {"role": "user", "content": "hi"}]


def test_pictures_are_data_or_addresses_and_documents_are_text() -> None:
    address = {"type": "image", "source": {"type": "url", "url": "https://host/a.png"}}
    note = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "note"}}
    nested = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "deep"}]}}

    (told,) = messages(("user", [{"type": "text", "text": "see"}, PNG, address, note, nested]))

    assert [part.get("text") or part["image_url"]["url"] for part in told["content"]] == [
        "see",
        "data:image/png;base64,iVBORw0KGgo=",
        "https://host/a.png",
        "note",
        "deep",
    ]


def test_what_is_said_of_a_document_comes_before_it() -> None:
    parts = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "deep"}]}}
    about = {"title": "Minutes", "context": "of May"}

    assert messages(("user", [{**NOTE, **about}])) == [{"role": "user", "content": "Minutes\nof May\nnote"}]
    (told,) = messages(("user", [{**parts, **about}]))
    assert [part["text"] for part in told["content"]] == ["Minutes", "of May", "deep"]
    assert messages(("user", [{**NOTE, "title": None}])) == [{"role": "user", "content": "note"}]


def test_a_tool_that_failed_says_so() -> None:
    failed = {**RESULT, "is_error": True}
    results = [{**failed, "content": "no such city"}, failed, {**RESULT, "is_error": False, "content": "sun"}]

    told = messages(("user", results))

    assert [each["content"] for each in told] == ["Error: no such city", "Error: ", "sun"]


def test_texts_never_run_together() -> None:
    def text(said: str) -> dict[str, str]:
        return {"type": "text", "text": said}

    use = {"type": "tool_use", "id": "t1", "name": "add", "input": {}}
    thoughts = [{"type": "thinking", "thinking": said, "signature": ""} for said in ("so", "then")]
    result = {**RESULT, "content": [text("count: 12"), text("34 rows")]}

    told = messages(
        ("user", "go"), ("assistant", [*thoughts, text("First."), use, text("Second.")]), ("user", [result])
    )

    assert (told[1]["content"], told[1]["reasoning"]) == ("First.\nSecond.", "so\nthen")
    assert told[2]["content"] == "count: 12\n34 rows"


def test_tools_that_only_anthropic_has_are_left_out_and_named() -> None:
    ask = asked(tools=[TOOL, SEARCH, {"type": "mcp_toolset", "mcp_server_name": "s"}], mcp_servers=[{"name": "s"}])

    assert [tool["function"]["name"] for tool in body(ask)["tools"]] == ["add"]
    assert ask.dropped == ("mcp_servers", "tools.web_search_20250305", "tools.mcp_toolset")
    alone = asked(tools=[SEARCH], tool_choice={"type": "auto"})
    assert not {"tools", "tool_choice"} & body(alone).keys()


def test_what_they_did_does_not_end_the_conversation() -> None:
    searched = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}}
    results = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="}}
    hit = {"type": "search_result", "title": "T", "source": "s", "content": [{"type": "text", "text": "body"}]}
    reference = {"type": "tool_reference", "tool_name": "add"}
    turns = [
        {"role": "user", "content": "search"},
        {"role": "assistant", "content": [searched, results, {"type": "text", "text": "Found."}]},
        {"role": "user", "content": [{**RESULT, "content": [pdf, hit, reference]}, {"type": "container_upload"}]},
    ]

    ask = asked(messages=turns)

    assert body(ask)["messages"] == [
        {"role": "user", "content": "search"},
        {"role": "assistant", "content": "Found."},
        {
            "role": "tool",
            "tool_call_id": "i",
            "content": "[document: left out, it cannot be shown here]\nT\ns\nbody\nadd",
        },
    ]
    kinds = ("server_tool_use", "web_search_tool_result", "document", "container_upload")
    assert ask.dropped == tuple(f"messages.{kind}" for kind in kinds)


def test_a_conversation_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(Problem, match="nothing is left that a model can read") as refused:
        asked(messages=[{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}])

    assert (refused.value.status, refused.value.param) == (400, "messages")


def test_calls_and_their_results_keep_their_ids_and_their_order() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    use = {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 7}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "12"}, PNG]}

    told = messages(
        ("user", "add"),
        ("assistant", [thought, {"type": "redacted_thinking", "data": "?"}, {"type": "text", "text": "Sure."}, use]),
        ("user", [result, {"type": "text", "text": "and?"}]),
        ("user", [{"type": "tool_result", "tool_use_id": "t2"}]),
    )

    assert told[1] == {
        "role": "assistant",
        "content": "Sure.",
        "reasoning": "hm",
        "reasoning_content": "hm",
        "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "add", "arguments": '{"a":7}'}}],
    }
    assert told[2] == {"role": "tool", "tool_call_id": "t1", "content": "12"}
    assert [part["type"] for part in told[3]["content"]] == ["image_url", "text"]
    assert told[4:] == [{"role": "tool", "tool_call_id": "t2", "content": ""}]


def test_results_and_what_they_show_stand_in_the_order_of_the_calls() -> None:
    def result(id_: str, *content: Any) -> dict[str, Any]:
        return {"type": "tool_result", "tool_use_id": id_, "content": list(content)}

    jpeg = {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "/9j/"}}

    sent = messages(
        ("user", "go"),
        ("assistant", [{**USE, "id": id_} for id_ in "abc"]),
        ("user", [result("c", {"type": "text", "text": "third"}), result("b", jpeg)]),
        ("user", [result("of nothing"), result("a", PNG), {"type": "text", "text": "and?"}]),
    )

    assert [each.get("tool_call_id") for each in sent] == [None, None, "a", "b", "c", "of nothing", None]
    assert sent[4] == {"role": "tool", "tool_call_id": "c", "content": "third"}
    first, second, words = sent[-1]["content"]
    assert ("png" in first["image_url"]["url"], "jpeg" in second["image_url"]["url"]) == (True, True)
    assert words == {"type": "text", "text": "and?"}


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, {}),
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any", "disable_parallel_tool_use": True}, {"tool_choice": "required", "parallel_tool_calls": False}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "add"}, {"tool_choice": {"type": "function", "function": {"name": "add"}}}),
    ],
)
def test_tools_are_functions(choice: Any, sent: dict[str, Any]) -> None:
    translated = body(asked(tools=[TOOL], tool_choice=choice))

    function = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}
    assert translated["tools"] == [{"type": "function", "function": function}]
    assert {name: translated[name] for name in translated if name in ("tool_choice", "parallel_tool_calls")} == sent


@pytest.mark.parametrize(
    ("fields", "think", "dropped"),
    [
        ({}, None, ()),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True, ("thinking.budget_tokens",)),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low", ()),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, False, ()),
        ({"output_config": {"effort": "high"}}, "high", ()),
        ({"service_tier": "auto", "container": "c"}, None, ("container", "service_tier")),
        ({"metadata": {"user_id": "u"}, "seed": 1, "foo": None}, None, ("metadata", "seed")),
    ],
)
def test_how_much_it_thinks_is_asked_for(fields: dict[str, Any], think: Any, dropped: tuple[str, ...]) -> None:
    ask = asked(**fields)

    assert (ask.extras.get("think"), ask.dropped) == (think, dropped)


def test_what_openai_has_no_word_for_goes_by_the_engines_own() -> None:
    begun = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "The"}]

    assert asked(messages=begun, top_k=3).extras == {"top_k": 3, "prefill": True}


@pytest.mark.parametrize("where", ["output_config", "output_format"])
def test_a_schema_is_a_response_format(where: str) -> None:
    form: Any = {"type": "json_schema", "schema": {"type": "object"}}

    fields: Any = {where: {"format": form} if where == "output_config" else form}

    translated = body(asked(**fields))

    assert translated["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_counting_needs_no_bound() -> None:
    ask = AnthropicMessagesApi(counts=True).translate(
        b'{"model":"m","messages":[{"role":"user","content":"hi"}]}', "abc"
    )

    assert body(ask) == {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": 7}]}, r"messages\[0\].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "'text' of a block"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "block of type 'video'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "base64"}}]}]},
            "'document' with this source",
        ),
        *(
            (
                {"messages": [{"role": "user", "content": [{**RESULT, "content": content}]}]},
                "'content' of a tool_result",
            )
            for content in (5, True, 0, {"type": "text", "text": "x"})
        ),
        ({"messages": [{"role": "user", "content": [{**NOTE, "title": 5}]}]}, "'title' of a block"),
        ({"system": [PNG]}, "only text"),
        *(
            (
                {"messages": [{"role": "assistant", "content": [{**USE, "input": given}]}]},
                "'input' of a tool_use block must be an object",
            )
            for given in ("{}", [1], 5)
        ),
        ({"tools": [{"type": "custom"}]}, "a tool has a name"),
        ({"tools": [TOOL], "tool_choice": {"type": "some"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "sub"}}, "not among the tools"),
        ({"tools": [SEARCH], "tool_choice": {"type": "tool", "name": "web_search"}}, "cannot be run here"),
        ({"tools": [SEARCH], "tool_choice": {"type": "any"}}, "none of the tools sent can be run here"),
        ({"tool_choice": {"type": "any"}}, "there are no tools"),
        ({"thinking": {"type": "hard"}}, "thinking"),
        ({"output_config": {"effort": "hard"}}, "effort"),
        ({"output_format": {"type": "xml"}}, "json_schema"),
    ],
)
def test_what_cannot_be_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem, match=said) as refused:
        asked(**fields)

    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("content", "told"),
    [([1, 2], "[1,2]"), ([None], "[null]"), ([{"a": 1}], '[{"a":1}]'), (["a", {"type": "text", "text": "b"}], "a\nb")],
)
def test_a_result_that_is_no_list_of_blocks_is_told_as_it_stands(content: Any, told: str) -> None:
    ask = asked(messages=[{"role": "user", "content": [{**RESULT, "content": content}]}])

    assert (body(ask)["messages"][-1]["content"], ask.dropped) == (told, ())


def test_null_is_what_is_left_out() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": None}
    told = body(asked(tools=[{"name": "f", "input_schema": None}], tool_choice=choice))

    assert told["tools"][0]["function"]["parameters"] == {"type": "object", "properties": {}}
    assert (told["tool_choice"], "parallel_tool_calls" in told) == ("auto", False)


def test_a_developer_is_the_system() -> None:
    assert messages(("user", "hi"), ("developer", "be brief"))[-1] == {"role": "system", "content": "be brief"}


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


def test_a_stream_of_text_is_one_block() -> None:
    out = encoded(spoken(), [STREAMS["vllm"]])

    kinds = [each["type"] for each in events(out)]
    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 4,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    blocks, ended = built(out)
    assert [(block["type"], block["parts"]) for block in blocks] == [("text", "The sum of 7")]
    assert ended["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert ended["usage"] == USAGE


def test_thinking_and_calls_are_blocks_of_their_own() -> None:
    thought, ended = built(encoded(spoken(), [STREAMS["thought"]]))
    called, stopped = built(encoded(spoken(), [STREAMS["calls"]]))

    assert [(block["type"], block["parts"]) for block in thought] == [
        ("thinking", "Let me think."),
        ("text", "Twelve."),
    ]
    assert ended["delta"]["stop_reason"] == "end_turn"
    assert [(block["type"], block.get("name"), block["parts"]) for block in called] == [
        ("text", None, "One moment. "),
        ("tool_use", "get_weather", '{"city": "Köln"}'),
        ("tool_use", "get_time", "{}"),
    ]
    assert called[1]["id"] == "call_a"
    assert stopped["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize("name", ["vllm", "thought", "calls"])
def test_a_whole_answer_has_the_blocks_of_its_stream(name: str) -> None:
    said = json.loads(encoded_whole(spoken(), whole(name), COST))
    blocks, ended = built(encoded(spoken(), [STREAMS[name]]))

    assert [block["type"] for block in said["content"]] == [block["type"] for block in blocks]
    assert said["stop_reason"] == ended["delta"]["stop_reason"]
    assert said["usage"] == USAGE
    for given_block, block in zip(said["content"], blocks, strict=True):
        if block["type"] == "tool_use":
            assert given_block["input"] == json.loads(block["parts"])
        else:
            assert given_block[block["type"]] == block["parts"]


def test_the_stop_sequence_is_told_where_the_engine_tells_it() -> None:
    piece = event({"content": "a"}, "stop", stop_reason="END")
    data = wire.sse(piece) + b"data: [DONE]\n\n"

    assert built(encoded(spoken("END"), [data]))[1]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}
    assert built(encoded(spoken("other"), [data]))[1]["delta"]["stop_reason"] == "end_turn"


@pytest.mark.parametrize("name", ALTERNATING)
def test_calls_whose_parts_alternate_are_a_block_each(name: str) -> None:
    blocks, ended = built(encoded(spoken(), [b"".join(map(wire.sse, ALTERNATING[name]))]))

    calls = [(block["id"], block["name"], block["parts"]) for block in blocks if block["type"] == "tool_use"]
    assert calls == BOTH_CALLS
    assert "".join(block["parts"] for block in blocks if block["type"] == "text") in ("", "One moment.")
    assert ended["delta"]["stop_reason"] == "tool_use"


def test_another_part_of_a_call_does_not_copy_the_ones_before() -> None:
    assert copied_by_a_part(spoken()) < 100_000


def test_a_whole_call_whose_arguments_are_no_object_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        encoded_whole(spoken(), whole("calls").replace(b'"arguments":"{}"', b'"arguments":"[]"'), COST)


def test_a_call_that_was_cut_is_left_out_of_a_whole_answer_and_a_broken_one_is_an_error_in_a_stream() -> None:
    cut = whole("calls").replace(b'"arguments":"{}"', b'"arguments":"{"').replace(b'"tool_calls"}', b'"length"}')
    broken = b"".join(map(wire.sse, [event(call(0, "call_a", "f", "true")), event({}, "tool_calls")]))

    said = json.loads(encoded_whole(spoken(), cut, COST))

    assert [block["type"] for block in said["content"]] == ["text", "tool_use"]
    assert said["stop_reason"] == "max_tokens"
    assert built(encoded(spoken(), [STREAMS["cut call"]]))[1]["delta"]["stop_reason"] == "max_tokens"
    with pytest.raises(ValueError, match="not a JSON object"):
        encoded(spoken(), [broken])


def test_an_answer_of_nothing_is_a_message_of_nothing() -> None:
    empty = b"".join(map(wire.sse, [event({"role": "assistant", "content": ""}), event({}, "stop")]))

    assert [each["type"] for each in events(encoded(spoken(), [empty]))] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]


@pytest.mark.parametrize(
    ("problem", "type_"),
    [
        (not_found(), "not_found_error"),
        (shutting_down(may_retry=True), "overloaded_error"),
        (Problem(415, "unsupported_media_type", "x"), "invalid_request_error"),
        (Problem(502, "engine_failed", "x"), "api_error"),
    ],
)
def test_failures_have_anthropics_shape(problem: Problem, type_: str) -> None:
    said = json.loads(spoken().refused(problem))

    assert said == {"type": "error", "error": {"type": type_, "message": problem.message}}
    assert events(spoken().failed(problem)) == [said]


def test_a_broken_stream_has_no_end() -> None:
    kinds = [each["type"] for each in events(unfinished(spoken()))]

    assert "message_delta" not in kinds
    assert "message_stop" not in kinds
    assert spoken().waiting("m (starting)") == b": waiting for m (starting)\n\n"
