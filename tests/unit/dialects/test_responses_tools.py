"""The tools that coding agents send to `/v1/responses`, and the histories that come of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.dialects.client_api import TranslatedRequest
from app.dialects.openai.stream_reader import DONE
from app.dialects.responses.request import ResponsesApi
from app.dialects.responses.tools import MAX_NAME_CHARS, ClientTool, free_text, read
from app.dialects.usage import Usage
from app.errors import Problem
from tests.fakes import wire
from tests.rigs.foreign_streams import call, encoded, encoded_whole, event

COST = Usage(12, 4, "tool_calls")
EMPTY = {"type": "object", "properties": {}}
RUN = {"type": "function", "name": "run_it", "strict": False, "parameters": EMPTY}
SPACE = {"type": "namespace", "name": "helpers_v1", "description": "several", "tools": [{**RUN, "name": "spawn"}]}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
PATCH = {"type": "custom", "name": "patch", "description": "free text", "format": GRAMMAR}
PNG = "data:image/png;base64,iVBORw0KGgo="
HOSTED = [
    "web_search",
    "web_search_preview",
    "file_search",
    "code_interpreter",
    "image_generation",
    "computer_use_preview",
    "mcp",
    "local_shell",
    "shell",
    "apply_patch",
    "tool_search",
    "of_tomorrow",
]


def asked(*items: Any, **fields: Any) -> TranslatedRequest:
    request = {"model": "m", "input": list(items) or "hi", **fields}
    return ResponsesApi(lambda: 0.0).translate(json.dumps(request).encode(), "abc")


def body(ask: TranslatedRequest) -> Any:
    return json.loads(msgspec.json.encode(ask.fields))


def names(ask: TranslatedRequest) -> list[str]:
    return [tool["function"]["name"] for tool in body(ask).get("tools", ())]


@pytest.mark.parametrize("kind", HOSTED)
def test_a_tool_that_cannot_be_run_is_left_out_and_named(kind: str) -> None:
    ask = asked(tools=[RUN, {"type": kind}])

    assert (names(ask), ask.dropped) == (["run_it"], (f"tools.{kind}",))


def test_without_any_that_can_there_are_no_tools() -> None:
    ask = asked(tools=[{"type": "web_search"}], tool_choice="auto", parallel_tool_calls=True)

    assert not {"tools", "tool_choice", "parallel_tool_calls"} & body(ask).keys()
    assert ask.dropped == ("tools.web_search",)


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "web_search_preview"},
        {"type": "mcp", "server_label": "s"},
        {"type": "function", "name": "absent"},
        {"type": "custom", "name": "absent"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "image_generation"}]},
        {"type": "allowed_tools"},
        {},
    ],
)
def test_a_choice_of_a_tool_that_is_not_there_is_refused(choice: Any) -> None:
    for tools in ([], [{"type": "web_search"}]):
        with pytest.raises(Problem, match="tool_choice") as refused:
            asked(tools=tools, tool_choice=choice)

        assert (refused.value.status, refused.value.param) == (400, "tool_choice")


@pytest.mark.parametrize(
    ("choice", "sent", "left"),
    [
        ("auto", "auto", ["run_it", "helpers_v1__spawn", "patch"]),
        ("none", "none", ["run_it", "helpers_v1__spawn", "patch"]),
        ("required", "required", ["run_it", "helpers_v1__spawn", "patch"]),
        ({"type": "custom", "name": "patch"}, "patch", ["run_it", "helpers_v1__spawn", "patch"]),
        ({"type": "function", "name": "spawn", "namespace": "helpers_v1"}, "helpers_v1__spawn", None),
        ({"type": "function", "name": "spawn"}, "helpers_v1__spawn", None),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "run_it"}]},
            "auto",
            ["run_it"],
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "patch"}]},
            "required",
            ["patch"],
        ),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "namespace", "name": "helpers_v1"}]},
            "auto",
            ["helpers_v1__spawn"],
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]}, None, []),
    ],
)
def test_a_choice_names_what_the_engine_is_told(choice: Any, sent: str | None, left: list[str] | None) -> None:
    ask = asked(tools=[RUN, SPACE, PATCH], tool_choice=choice)

    choice = body(ask).get("tool_choice")
    assert (choice["function"]["name"] if isinstance(choice, dict) else choice) == sent
    assert left is None or names(ask) == left


def test_a_namespace_is_flattened_and_its_calls_come_back_in_it() -> None:
    ask = asked(tools=[RUN, SPACE])

    assert names(ask) == ["run_it", "helpers_v1__spawn"]
    (item,) = called(ask, "helpers_v1__spawn", "{}")
    assert (item["type"], item["name"], item["namespace"]) == ("function_call", "spawn", "helpers_v1")


def test_names_stay_apart_and_are_names_for_engines() -> None:
    long = "x" * 80
    spaces = [
        {"type": "namespace", "name": space, "tools": [{**RUN, "name": name}]}
        for space, name in (("a", "b__c"), ("a__b", "c"), ("größe", "x y"), (long, "one"), (long, "two"))
    ]

    tools = read([{**RUN, "name": "a__b__c"}, *spaces])

    engines = list(tools.names)
    assert len(engines) == len(set(engines)) == 6
    assert all(len(name) <= MAX_NAME_CHARS and name.replace("-", "_").isascii() and " " not in name for name in engines)
    assert [tools.called(tools.told(name)) for name in engines] == engines
    assert tools.told("unheard_of") == ClientTool("function", "unheard_of")


def test_free_text_is_a_function_with_one_input_and_comes_back_as_text() -> None:
    ask = asked(tools=[PATCH])

    function = body(ask)["tools"][0]["function"]
    assert (function["name"], function["parameters"]["required"]) == ("patch", ["input"])
    assert GRAMMAR["definition"] in function["parameters"]["properties"]["input"]["description"]
    assert ask.dropped == ("tools.patch.format",)
    (item,) = called(ask, "patch", '{"input": "*** Begin\\n"}')
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "patch", "*** Begin\n")
    assert asked(tools=[{"type": "custom", "name": "t", "format": {"type": "text"}}]).dropped == ()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input": "a"}', "a"),
        ('{"input": "a", "more": 1}', "a"),
        ('{"patch": "a"}', "a"),
        ('"a"', "a"),
        ("a", "a"),
        ('{"input": 7}', '{"input": 7}'),
        ('{"input": "cut', '{"input": "cut'),
        ("", ""),
    ],
)
def test_the_text_is_found_in_what_models_write(arguments: str, text: str) -> None:
    assert free_text(arguments) == text


def test_a_stream_tells_a_free_text_in_its_own_events() -> None:
    encoder = asked(tools=[PATCH, SPACE]).encoder
    stream = [
        event(call(0, "c1", "patch", '{"inp')),
        event(call(1, "c2", "helpers_v1__spawn", "{}")),
        event(call(0, arguments='ut": "x"}')),
        event({}, "tool_calls"),
    ]

    out = encoded(encoder, [b"".join(map(wire.sse, stream)) + DONE]).decode()

    events = [json.loads(line[6:]) for line in out.split("\n") if line.startswith("data: ")]
    kinds = [each["type"] for each in events]
    assert "response.custom_tool_call_input.delta" in kinds
    done = next(each for each in events if each["type"] == "response.custom_tool_call_input.done")
    assert done["input"] == "x"
    patch, spawn = events[-1]["response"]["output"]
    assert (patch["type"], patch["input"], patch["call_id"]) == ("custom_tool_call", "x", "c1")
    assert (spawn["namespace"], spawn["name"], spawn["arguments"]) == ("helpers_v1", "spawn", "{}")


def called(ask: TranslatedRequest, name: str, arguments: str) -> Any:
    """The items of a whole answer that calls this function of the engine's."""
    made = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [made]}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    return json.loads(encoded_whole(ask.encoder, wire.dumps(answer), COST))["output"]


def test_a_history_with_every_kind_of_item_goes_on() -> None:
    ask = asked(
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]},
        {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "x"},
        {"type": "function_call", "call_id": "1", "name": "spawn", "namespace": "helpers_v1", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "2", "name": "patch", "input": "p"},
        {"type": "local_shell_call", "call_id": "3", "id": "l", "action": {"type": "exec", "command": ["ls"]}},
        {"type": "shell_call", "call_id": "4", "action": {"commands": ["ls"]}},
        {"type": "apply_patch_call", "call_id": "5", "operation": {"type": "delete_file", "path": "a"}},
        {"type": "tool_search_call", "call_id": "6", "execution": "client", "arguments": {"query": "q"}},
        {"type": "computer_call", "call_id": "7", "id": "7", "action": {"type": "screenshot"}},
        {"type": "function_call_output", "call_id": "1", "output": "one"},
        {"type": "custom_tool_call_output", "call_id": "2", "output": "two"},
        {"type": "local_shell_call_output", "id": "3", "output": "three"},
        {"type": "shell_call_output", "call_id": "4", "output": [{"stdout": "four", "outcome": {"type": "exit"}}]},
        {"type": "apply_patch_call_output", "call_id": "5", "status": "completed", "output": "five"},
        {"type": "tool_search_output", "call_id": "6", "tools": [{**RUN, "name": "found"}]},
        {
            "type": "computer_call_output",
            "call_id": "7",
            "output": {"type": "computer_screenshot", "image_url": PNG},
        },
        {"type": "mcp_call", "id": "8", "server_label": "s", "name": "ask", "arguments": '{"a":1}', "output": "eight"},
        {"type": "code_interpreter_call", "id": "9", "code": "1+1", "outputs": [{"type": "logs", "logs": "2"}]},
        {"type": "file_search_call", "id": "10", "queries": ["q"], "results": [{"text": "ten"}]},
        *(
            {"type": kind, "id": "i"}
            for kind in ("web_search_call", "image_generation_call", "mcp_list_tools", "compaction", "of_tomorrow")
        ),
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]},
        {"type": "message", "role": "user", "content": "more"},
        tools=[SPACE, PATCH],
    )

    told = body(ask)["messages"]
    calls = {each["id"]: each["function"] for message in told for each in message.get("tool_calls", ())}
    results = {each["tool_call_id"]: each["content"] for each in told if each["role"] == "tool"}
    assert calls.keys() == results.keys() == {str(number) for number in range(1, 11)}
    assert calls["1"] == {"name": "helpers_v1__spawn", "arguments": "{}"}
    assert calls["2"] == {"name": "patch", "arguments": '{"input":"p"}'}
    assert json.loads(calls["3"]["arguments"])["command"] == ["ls"]
    assert [results[id_] for id_ in ("1", "2", "3", "5", "6")] == ["one", "two", "three", "five", "found"]
    assert json.loads(results["4"])[0]["stdout"] == "four"
    assert calls["8"] == {"name": "ask", "arguments": '{"a":1}'}
    assert "eight" in results["8"]
    assert '"2"' in results["9"]
    assert "ten" in results["10"]
    assert names(ask) == ["helpers_v1__spawn", "patch", "found"]
    assert [message["role"] for message in told[-2:]] == ["assistant", "user"]
    assert any(
        part.get("image_url") == {"url": PNG} for m in told if isinstance(m["content"], list) for part in m["content"]
    )
    left = ("web_search_call", "image_generation_call", "mcp_list_tools", "compaction", "of_tomorrow")
    assert ask.dropped == ("tools.patch.format", *(f"input.{kind}" for kind in left))


@pytest.mark.parametrize("kind", ["function_call", "custom_tool_call"])
def test_a_picture_from_a_tool_comes_with_the_users_next_words(kind: str) -> None:
    shown = [{"type": "input_text", "text": "here"}, {"type": "input_image", "image_url": PNG}]
    words = {"arguments": "{}"} if kind == "function_call" else {"input": "x"}
    history: list[Any] = [
        {"role": "user", "content": "look"},
        {"type": kind, "call_id": "1", "name": "view", **words},
        {"type": kind, "call_id": "2", "name": "view", **words},
        {"type": f"{kind}_output", "call_id": "1", "output": shown},
        {"type": f"{kind}_output", "call_id": "2", "output": "nothing"},
    ]

    told = body(asked(*history))["messages"]
    after = body(asked(*history, {"role": "user", "content": "and?"}))["messages"]
    answered = body(asked(*history, {"role": "assistant", "content": "ok"}))["messages"]

    picture = {"type": "image_url", "image_url": {"url": PNG}}
    assert [message["role"] for message in told] == ["user", "assistant", "tool", "tool", "user"]
    assert (told[2]["content"], told[3]["content"], told[4]["content"]) == ("here", "nothing", [picture])
    assert after[-1] == {"role": "user", "content": [picture, {"type": "text", "text": "and?"}]}
    assert [message["role"] for message in answered] == ["user", "assistant", "tool", "tool", "user", "assistant"]


def test_results_and_what_they_show_stand_in_the_order_of_the_calls() -> None:
    def result(id_: str, *parts: Any) -> dict[str, Any]:
        return {"type": "function_call_output", "call_id": id_, "output": list(parts)}

    ask = asked(
        *[{"type": "function_call", "call_id": id_, "name": "run_it", "arguments": "{}"} for id_ in "ab"],
        result("b", {"type": "input_image", "image_url": PNG + "b"}),
        result("a", {"type": "input_image", "image_url": PNG + "a"}),
        {"role": "assistant", "content": "done"},
    )

    called, first, second, shown, done = body(ask)["messages"]
    assert [call["id"] for call in called["tool_calls"]] == [first["tool_call_id"], second["tool_call_id"]]
    assert [part["image_url"]["url"] for part in shown["content"]] == [PNG + "a", PNG + "b"]
    assert done["role"] == "assistant"


def test_what_a_result_cannot_show_is_said_and_named() -> None:
    ask = asked(
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "1",
            "output": [
                {"type": "input_text", "text": "count: 12"},
                {"type": "input_text", "text": "34 rows"},
                {"type": "input_file", "file_id": "f"},
                {"type": "input_image", "file_id": "f"},
            ],
        },
    )

    text = body(ask)["messages"][-1]["content"]
    assert text.split("\n") == [
        "count: 12",
        "34 rows",
        "[input_file: left out, it cannot be shown here]",
        "[input_image: left out, it cannot be shown here]",
    ]
    assert ask.dropped == ("input.input_file", "input.input_image")


@pytest.mark.parametrize("kind", ["compaction", "web_search_call", "of_tomorrow"])
def test_a_history_of_which_nothing_is_left_is_refused(kind: str) -> None:
    with pytest.raises(Problem, match="nothing that a model can read") as refused:
        asked({"type": kind, "id": "i"})

    assert (refused.value.status, refused.value.param) == (400, "input")


def test_a_turn_of_the_models_may_have_no_content() -> None:
    told = body(asked({"role": "user", "content": "q"}, {"role": "assistant", "content": None}))["messages"]

    assert told[-1] == {"role": "assistant", "content": ""}


def result_of(output: Any) -> tuple[str, tuple[str, ...]]:
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    ask = asked(call, {"type": "function_call_output", "call_id": "1", "output": output})
    return next(message["content"] for message in body(ask)["messages"] if message["role"] == "tool"), ask.dropped


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (["count: 12", "34 rows"], "count: 12\n34 rows"),
        ([1, 2], "[1,2]"),
        ([None], "[null]"),
        ([{"a": 1}, {"a": 2}], '[{"a":1},{"a":2}]'),
        ([{"type": None, "text": "x"}], '[{"type":null,"text":"x"}]'),
        ({"a": 1}, '{"a":1}'),
        (3, "3"),
        (None, ""),
    ],
)
def test_a_result_that_is_no_list_of_parts_is_told_as_it_stands(output: Any, told: str) -> None:
    assert result_of(output) == (told, ())


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_image", "image_url": {"url": PNG}},
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "image_url", "image_url": PNG},
    ],
)
def test_a_picture_is_one_in_the_words_of_chats_too(part: dict[str, Any]) -> None:
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    ask = asked(call, {"type": "function_call_output", "call_id": "1", "output": [part]})

    assert body(ask)["messages"][-1] == {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}
    assert ask.dropped == ()


@pytest.mark.parametrize(("given", "sent"), [(None, "{}"), ({"a": 1}, '{"a":1}'), ("", "{}")])
def test_a_call_in_the_history_may_have_no_arguments_or_an_object(given: Any, sent: str) -> None:
    told = body(asked({"type": "function_call", "call_id": "1", "name": "f", "arguments": given}))["messages"]

    assert told[-1]["tool_calls"][0]["function"]["arguments"] == sent


def test_an_item_without_a_type_is_a_message() -> None:
    assert body(asked({"type": None, "role": "user", "content": "q"}))["messages"][-1]["content"] == "q"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "run_it"}}}, "'name' is missing"),
        ({"tool_choice": {"type": "function", "name": 1}}, "'name' is missing"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "a list of 'tools'"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "not inside 'function' as in chats"),
        ({"input": [{"role": "user", "content": ["a"]}]}, "an object with a 'type'"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": None}]}]},
            "does not hold what its type",
        ),
    ],
)
def test_what_is_shaped_otherwise_is_told_how(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem, match=said) as refused:
        asked(**({"tools": [RUN]} | fields))

    assert refused.value.status == 400
