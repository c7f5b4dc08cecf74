"""Ollama's requests as OpenAI's, and OpenAI's answers as Ollama's lines, wherever the engine's stream is cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ollama import Options

from app.dialects.client_api import TranslatedRequest
from app.dialects.delta import DeltaReader
from app.dialects.engine_options import taken
from app.dialects.ollama.request import OllamaChatApi, OllamaEmbedApi, read_options
from app.dialects.ollama.response import Kind, OllamaChatEncoder, OllamaEmbedEncoder
from app.dialects.usage import Usage
from app.errors import Problem, not_found
from backends.kinds import PROFILES
from tests import RECORDED
from tests.fakes import wire
from tests.fakes.wire import sse
from tests.rigs.foreign_streams import (
    ALTERNATING,
    BOTH_CALLS,
    CUT_CALL,
    STREAMS,
    copied_by_a_part,
    encoded,
    encoded_whole,
    unfinished,
    whole,
)
from tests.rigs.read_answer import pieces
from tests.rigs.steps import steps

NOW = 1795334421.5
PNG = "iVBORw0KGgoAAAANSUhEUg=="
COST = Usage(12, 4, "length")


def at(now: float = NOW) -> Callable[[], float]:
    return lambda: now


def chat(**fields: Any) -> TranslatedRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return OllamaChatApi(Kind.CHAT, at()).translate(json.dumps(body).encode(), "abc")


def generate(**fields: Any) -> TranslatedRequest:
    return OllamaChatApi(Kind.GENERATE, at()).translate(
        json.dumps({"model": "m", "prompt": "hi", **fields}).encode(), "abc"
    )


def body(ask: TranslatedRequest) -> Any:
    """What would be sent, as JSON."""
    return json.loads(msgspec.json.encode(ask.fields))


def written(kind: Kind = Kind.CHAT) -> OllamaChatEncoder:
    return OllamaChatEncoder(kind, "Mine:latest", "abc", at())


def lines(out: bytes) -> list[Any]:
    assert out.endswith(b"\n")
    return [json.loads(line) for line in out.splitlines()]


# -- requests


def test_a_chat_is_a_chat_that_streams() -> None:
    ask = chat()

    assert ask.path == "/v1/chat/completions"
    assert body(ask) == {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    assert (ask.model, ask.extras, ask.dropped, ask.loads) == ("m", {}, (), None)


def test_a_prompt_is_a_chat_and_a_raw_one_a_completion() -> None:
    templated = generate(system="Be brief.", images=[PNG], stream=False)
    raw = generate(raw=True)

    system, user = body(templated)["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"][0] == {"type": "text", "text": "hi"}
    assert user["content"][1]["image_url"]["url"] == f"data:image/png;base64,{PNG}"
    assert body(templated)["stream"] is False
    assert (raw.path, body(raw)) == ("/v1/completions", {"prompt": "hi", "stream": True})


def test_tool_results_find_their_calls_by_name_or_by_order() -> None:
    def asked(name: str) -> dict[str, Any]:
        return {"function": {"name": name, "arguments": {"city": "Köln"}}}

    messages = [
        {"role": "assistant", "content": "", "tool_calls": [asked("time"), asked("weather")], "thinking": "hm"},
        {"role": "tool", "tool_name": "weather", "content": "rain"},
        {"role": "tool", "content": "noon"},
        {"role": "tool", "content": "of nothing"},
    ]

    said, noon, rain, stray = body(chat(messages=messages))["messages"]

    time, weather = said["tool_calls"]
    assert [json.loads(each["function"]["arguments"]) for each in (time, weather)] == [{"city": "Köln"}] * 2
    assert (rain["tool_call_id"], noon["tool_call_id"]) == (weather["id"], time["id"])
    assert stray["tool_call_id"] == "call_unknown"
    assert said["reasoning"] == said["reasoning_content"] == "hm"


def test_a_picture_from_a_tool_comes_with_the_users_next_words() -> None:
    history = [
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "view", "arguments": {}}}] * 2},
        {"role": "tool", "content": "here", "images": [PNG]},
        {"role": "tool", "content": "there", "images": [PNG]},
    ]
    more = {"user": {"role": "user", "content": "and?"}, "assistant": {"role": "assistant", "content": "ok"}}

    told, asked, answered = (
        body(chat(messages=[*history, *said]))["messages"] for said in ([], [more["user"]], [more["assistant"]])
    )

    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    assert [said["content"] for said in told] == ["", "here", "there", [picture, picture]]
    assert asked[-1]["content"] == [picture, picture, {"type": "text", "text": "and?"}]
    assert [said["role"] for said in answered] == ["assistant", "tool", "tool", "user", "assistant"]


def test_results_that_fit_no_call_cost_a_step_each() -> None:
    def lines_run(count: int) -> int:
        messages: list[dict[str, Any]] = [
            {"role": "assistant", "tool_calls": [{"function": {"name": "add"}}] * (2 * count)},
            *[{"role": "tool", "tool_name": "other", "content": "x"}] * count,
        ]
        data = json.dumps({"model": "m", "messages": messages}).encode()
        return steps(lambda: OllamaChatApi(Kind.CHAT, at()).translate(data, "abc"))

    assert lines_run(200) < 2.2 * lines_run(100)


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"format": "json"}, {"response_format": {"type": "json_object"}}),
        ({"format": ""}, {}),
        ({"format": None}, {}),
        (
            {"format": {"type": "object"}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "format", "schema": {"type": "object"}},
                }
            },
        ),
        ({"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"tools": []}, {}),
        ({"tools": [{"type": "function"}]}, {"tools": [{"type": "function"}]}),
        ({"options": {"num_predict": 5, "seed": 0}}, {"max_tokens": 5, "seed": 0}),
        ({"options": {"num_predict": -1, "seed": -1, "stop": []}}, {}),
        ({"options": {"num_predict": -2}}, {}),
        ({"options": {"stop": "x"}}, {"stop": ["x"]}),
        *(({"options": same}, same) for same in ({"temperature": 0, "top_p": 1}, {"stop": ["x", "y"]})),
        *(({"options": same}, same) for same in ({"presence_penalty": 1, "frequency_penalty": 0.5},)),
    ],
)
def test_parameters_become_openais(asked: dict[str, Any], sent: dict[str, Any]) -> None:
    plain = body(chat())

    assert body(chat(**asked)) == plain | sent


def test_what_no_engine_can_be_told_is_named() -> None:
    ask = chat(
        options={"num_ctx": 8192, "num_gpu": 1, "mirostat": None, "made_up": 1, "not a name!": 1},
        keep_alive="5m",
        truncate=True,
        shift=False,
    )

    assert ask.dropped == ("made_up", "num_ctx", "num_gpu", "truncate", "keep_alive")
    assert body(ask) == body(chat())


def test_what_ollama_does_not_know_is_named_too() -> None:
    assert chat(max_tokens=5, n=None, tool_choice="auto").dropped == ("max_tokens", "tool_choice")
    assert generate(prompt="hi", messages=[]).dropped == ("messages",)
    assert OllamaEmbedApi(at(), is_old=False).translate(b'{"model":"m","input":"a","user":"u"}', "abc").dropped == (
        "user",
    )


def test_a_raw_prompt_keeps_its_format_in_each_engines_words() -> None:
    schema = {"type": "object"}
    ask = generate(raw=True, format=schema, think=True, logprobs=True)

    def words(kind: str) -> Any:
        return json.loads(msgspec.json.encode(taken(ask.extras, PROFILES[kind])[0]))

    assert "response_format" not in ask.fields
    assert ask.dropped == ("think", "logprobs")
    assert words("llama_cpp") == {"json_schema": schema}
    assert words("vllm")["response_format"]["json_schema"]["schema"] == schema
    assert taken(ask.extras, PROFILES["remote"]) == ({}, ["format"])
    assert taken(generate(raw=True, format="json").extras, PROFILES["llama_cpp"])[0] == {
        "json_schema": {"type": "object"}
    }


def test_extras_go_to_the_engines_that_have_them_under_their_names_there() -> None:
    extras = chat(options={"top_k": 3, "repeat_penalty": 1.1, "typical_p": 0.9}, think=False).extras

    assert taken(extras, PROFILES["llama_cpp"]) == (
        {"top_k": 3, "repeat_penalty": 1.1, "typical_p": 0.9, "chat_template_kwargs": {"enable_thinking": False}},
        [],
    )
    assert taken(extras, PROFILES["vllm"]) == (
        {"top_k": 3, "repetition_penalty": 1.1, "chat_template_kwargs": {"enable_thinking": False}},
        ["typical_p"],
    )
    assert taken(extras, PROFILES["ollama"]) == (
        {"top_k": 3, "repeat_penalty": 1.1, "typical_p": 0.9, "reasoning_effort": "none"},
        [],
    )
    assert taken(extras, PROFILES["remote"]) == ({}, ["top_k", "repeat_penalty", "typical_p", "think"])
    assert taken({"think": "high"}, PROFILES["remote"]) == ({"reasoning_effort": "high"}, [])
    assert taken({"think": "high"}, PROFILES["vllm"])[0]["reasoning_effort"] == "high"
    assert taken({"think": True}, PROFILES["ollama"])[0] == {"reasoning_effort": "medium"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"messages": "hi"}, "'messages' has the wrong type"),
        ({"messages": [{"role": 1}]}, r"'messages\[0\].role' has the wrong type"),
        ({"options": {"num_predict": "many"}}, 'option "num_predict" must be of type integer'),
        ({"options": {"num_predict": 0}}, "0 is neither"),
        ({"options": {"num_predict": -7}}, "-7 is neither"),
        ({"options": {"top_k": 1.5}}, 'option "top_k" must be of type integer'),
        ({"options": {"temperature": True}}, 'option "temperature" must be of type float32'),
        ({"options": {"stop": [1]}}, 'option "stop" must be of type array'),
        ({"format": 7}, "'format'"),
        ({"think": "hard"}, "'think'"),
        ({"keep_alive": "soon"}, "invalid duration"),
        ({"messages": [{"role": "user", "images": ["AAAA"]}]}, "PNG, JPEG"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
            "must be an object",
        ),
    ],
)
def test_what_is_wrong_is_named_and_not_repeated(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem, match=said) as refused:
        chat(**asked)

    assert refused.value.status == 400


@pytest.mark.parametrize(
    "asked", [{"suffix": "x"}, {"template": "x"}, {"context": [1]}, {"raw": True, "images": [PNG]}]
)
def test_what_would_change_the_answer_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(Problem) as refused:
        generate(**asked)

    assert (refused.value.status, refused.value.code) == (400, "not_supported")


def test_an_empty_question_only_loads() -> None:
    for ask in (chat(messages=[]), chat(messages=[], keep_alive=-1), generate(prompt=""), generate(prompt=None)):
        assert ask.loads is not None
        answer = json.loads(ask.loads)
        assert (answer["model"], answer["done"], answer["done_reason"]) == ("m", True, "load")
    for empty in ({"messages": [], "keep_alive": 0}, {"messages": [], "keep_alive": "0s"}):
        with pytest.raises(Problem) as refused:
            chat(**empty)
        assert refused.value.status == 501


@pytest.mark.parametrize(
    ("data", "said"), [(b"", "missing request body"), (b"{", "not valid JSON"), (b"[]", "JSON object")]
)
def test_what_is_no_request_is_refused(data: bytes, said: str) -> None:
    for front in (
        OllamaChatApi(Kind.CHAT, at()),
        OllamaChatApi(Kind.GENERATE, at()),
        OllamaEmbedApi(at(), is_old=False),
    ):
        with pytest.raises(Problem, match=said):
            front.translate(data, "abc")


def test_each_option_of_the_official_client_is_known() -> None:
    """Every option either goes to an engine or is named; none disappears."""
    for name in Options.model_fields:
        value: Any = ["x"] if name == "stop" else 1
        fields, extras, dropped = read_options({name: value})
        assert len(fields) + len(extras) + len(dropped) == 1, name


def test_texts_to_embed_are_openais() -> None:
    many = OllamaEmbedApi(at(), is_old=False).translate(
        b'{"model":"m","input":["a","b"],"dimensions":4,"truncate":true}', "abc"
    )
    one = OllamaEmbedApi(at(), is_old=True).translate(b'{"model":"m","prompt":"a","options":{"num_ctx":1}}', "abc")
    none = OllamaEmbedApi(at(), is_old=False).translate(b'{"model":"m","input":""}', "abc")

    assert (many.path, many.fields) == (
        "/v1/embeddings",
        {"input": ["a", "b"], "encoding_format": "float", "dimensions": 4},
    )
    assert (many.dropped, one.dropped) == (("truncate",), ("num_ctx",))
    assert one.fields["input"] == "a"
    assert json.loads(none.loads or b"")["embeddings"] == []


# -- answers


@pytest.mark.parametrize("name", STREAMS)
def test_one_cut_anywhere_changes_nothing(name: str) -> None:
    data = STREAMS[name]
    kind = Kind.GENERATE if name == "completion" else Kind.CHAT
    expected = encoded(written(kind), [data])

    for cut in range(1, len(data)):
        assert encoded(written(kind), [data[:cut], data[cut:]]) == expected


@settings(max_examples=100)
@given(st.sampled_from(sorted(STREAMS)), st.lists(st.integers(1, 400), min_size=1, max_size=60))
def test_random_pieces_change_nothing(name: str, sizes: list[int]) -> None:
    data = STREAMS[name]

    assert encoded(written(), pieces(data, sizes)) == encoded(written(), [data])


@pytest.mark.parametrize("name", ["vllm", "llama.cpp", "crlf"])
def test_a_stream_of_text_is_lines_and_a_last_one_with_the_counts(name: str) -> None:
    *parts, last = lines(encoded(written(), [STREAMS[name]]))

    assert "".join(part["message"]["content"] for part in parts) == "The sum of 7"
    assert all(part["message"]["role"] == "assistant" and part["done"] is False for part in parts)
    assert {part["model"] for part in parts} == {"Mine:latest"}
    assert last["message"] == {"role": "assistant", "content": ""}
    assert (last["done"], last["done_reason"]) == (True, "length")
    assert (last["prompt_eval_count"], last["eval_count"]) == (12, 4)
    assert last["created_at"] == "2026-11-22T08:00:21.500000Z"


def test_llama_cpps_own_times_are_told() -> None:
    last = lines(encoded(written(), [STREAMS["llama.cpp"]]))[-1]

    assert (last["prompt_eval_duration"], last["eval_duration"]) == (21_165_000, 59_886_000)
    assert "load_duration" not in last


def test_times_that_nobody_told_are_measured() -> None:
    times = iter(range(100))
    encoder = OllamaChatEncoder(Kind.CHAT, "m", "abc", lambda: float(next(times)))

    last = lines(encoded(encoder, [STREAMS["vllm"]]))[-1]

    assert last["total_duration"] > last["eval_duration"] > 0
    assert last["prompt_eval_duration"] > 0


def test_thinking_is_apart_from_the_answer() -> None:
    *parts, last = lines(encoded(written(), [STREAMS["thought"]]))

    assert "".join(part["message"].get("thinking", "") for part in parts) == "Let me think."
    assert "".join(part["message"]["content"] for part in parts) == "Twelve."
    assert last["done_reason"] == "stop"
    said = json.loads(encoded_whole(written(), whole("thought"), COST))
    assert said["message"] == {"role": "assistant", "content": "Twelve.", "thinking": "Let me think."}


def test_calls_are_told_whole_with_objects_and_end_with_stop() -> None:
    streamed = lines(encoded(written(), [STREAMS["calls"]]))
    said = json.loads(encoded_whole(written(), whole("calls"), COST))

    calls = [call for line in streamed for call in line["message"].get("tool_calls", ())]
    assert calls == said["message"]["tool_calls"]
    assert calls[0] == {
        "id": "call_a",
        "function": {"index": 0, "name": "get_weather", "arguments": {"city": "Köln"}},
    }
    assert calls[1]["function"] == {"index": 1, "name": "get_time", "arguments": {}}
    assert streamed[-1]["done_reason"] == said["done_reason"] == "stop"


def test_a_call_without_number_or_parts_is_told_too() -> None:
    first, last = lines(encoded(written(), [STREAMS["whole call"]]))

    assert first["message"]["tool_calls"][0]["function"]["arguments"] == {"city": "Köln"}
    assert last["done_reason"] == "stop"


def test_another_part_of_a_call_does_not_copy_the_ones_before() -> None:
    assert copied_by_a_part(written()) < 100_000


def test_a_call_that_was_cut_is_none_and_a_broken_one_is_an_error() -> None:
    assert not any("tool_calls" in line["message"] for line in lines(encoded(written(), [STREAMS["cut call"]])))
    broken = b"".join(map(sse, CUT_CALL)).replace(b'"length"', b'"tool_calls"')

    with pytest.raises(ValueError, match="not a JSON object"):
        encoded(written(), [broken])


def test_a_whole_answer_is_one_object() -> None:
    said = json.loads(encoded_whole(written(Kind.GENERATE), whole("vllm"), COST))

    assert (said["response"], said["done"], said["done_reason"]) == ("The sum of 7", True, "length")
    assert (said["prompt_eval_count"], said["eval_count"]) == (12, 4)
    assert "eval_duration" not in said  # nobody told, and it cannot be measured


@pytest.mark.parametrize("answer", [b"[]", b'{"choices":[{"message":{"content":7}}]}', b'{"choices":"x"}'])
def test_what_is_not_an_answer_is_not_told(answer: bytes) -> None:
    with pytest.raises(ValueError, match="not a chunk"):
        DeltaReader("abc").read(json.loads(answer))
    with pytest.raises(ValueError, match="vectors"):
        OllamaEmbedEncoder("m", at(), is_old=False).embeddings(answer, COST)


def test_vectors_keep_their_digits_and_get_their_order() -> None:
    answer = b'{"data":[{"index":1,"embedding":[0.10]},{"index":0,"embedding":[1e-3,2]}],"model":"m"}'

    many = OllamaEmbedEncoder("m", at(), is_old=False).embeddings(answer, Usage(7, 0))
    one = OllamaEmbedEncoder("m", at(), is_old=True).embeddings(answer, Usage(7, 0))

    assert b'"embeddings":[[1e-3,2],[0.10]]' in many
    assert json.loads(many)["prompt_eval_count"] == 7
    assert one == b'{"embedding":[1e-3,2]}'


def test_while_nothing_comes_empty_pieces_are_told() -> None:
    (line,) = lines(written().waiting("m (starting)"))

    assert (line["message"]["content"], line["done"]) == ("", False)


def test_failures_are_one_string() -> None:
    unknown = Problem(404, "model_not_found", "There is no such model here.", param="model")
    encoder = written()

    assert json.loads(encoder.refused(unknown)) == {
        "error": "model 'Mine:latest' not found: There is no such model here."
    }
    assert encoder.failed(not_found()).endswith(b'"}\n')
    assert all("done_reason" not in line for line in lines(unfinished(encoder)))


def test_the_recorded_tool_call_of_a_daemons_openai_surface_is_told_as_its_own() -> None:
    data = (RECORDED / "ollama_tools.sse").read_bytes()

    first, last = lines(encoded(written(), [data]))

    assert first["message"]["tool_calls"][0]["function"]["arguments"] == {"city": "Paris"}
    assert (last["prompt_eval_count"], last["eval_count"]) == (85, 28)


@pytest.mark.parametrize("name", ALTERNATING)
def test_calls_whose_parts_alternate_are_told_whole(name: str) -> None:
    *parts, last = lines(encoded(written(), [b"".join(map(wire.sse, ALTERNATING[name]))]))

    calls = [call for part in parts for call in part["message"].get("tool_calls") or ()]
    triples = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]
    assert triples == [(id_, called, json.loads(arguments)) for id_, called, arguments in BOTH_CALLS]
    assert last["done_reason"] == "stop"
