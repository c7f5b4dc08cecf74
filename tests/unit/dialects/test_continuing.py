"""An answer that breaks off anywhere and goes on at another engine is the same answer, to the character."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from app.dialects import json_members
from app.dialects.continuing import seam
from app.dialects.continuing.continued_chunks import ContinuedChunks
from app.dialects.continuing.permission import Continuable, continuable, why_not
from app.dialects.continuing.seam import Seam
from app.dialects.continuing.token_record import TokenRecord, asked
from app.dialects.openai.normalize import ResponseContext
from app.dialects.openai.stream_reader import StreamReader
from backends.engine_profile import UNKNOWN, TokenTelling
from backends.errors import Broken
from backends.kinds import PROFILES
from tests.fakes.teller import ANSWER, PROMPT, STOP, TEXT, beside, events

LIMIT = 1 << 20
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
TEXTS = {"model": "m", "prompt": "<user>hi<assistant>", "stream": True, "max_tokens": 200}
TELLINGS = list(TokenTelling)
KINDS = {TokenTelling.NUMBERS: "vllm", TokenTelling.PROBABILITIES: "llama_cpp"}


def body_of(*, is_chat: bool, **more: object) -> bytes:
    return json.dumps({**(CHAT if is_chat else TEXTS), "stream_options": {"include_usage": True}, **more}).encode()


def operation(*, is_chat: bool) -> str:
    return "chat" if is_chat else "text_completion"


def reader_of(*, is_chat: bool) -> StreamReader:
    context = ResponseContext("first", "m", operation(is_chat=is_chat), "t", 1)
    return StreamReader(context, hides_usage=False, max_event_bytes=LIMIT)


def run(finding: seam.Finding, telling: TokenTelling) -> Seam:
    """The seam, with an engine that answers at once."""
    try:
        step = next(finding)
        while True:
            answer = beside(telling, step.path, json.loads(step.body))
            step = finding.send(json.dumps(answer).encode())
    except StopIteration as end:
        found_at: Seam = end.value
        return found_at


def chunks_of(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(event[6:]) for event in data.split(b"\n\n") if event.startswith(b"data: {")]


def text_of(data: bytes) -> str:
    choices = [choice for chunk in chunks_of(data) for choice in chunk["choices"]]
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)


def sent_and_going_on(telling: TokenTelling, *, is_chat: bool, **more: object) -> tuple[dict[str, Any], Continuable]:
    body, going_on = continuable(body_of(is_chat=is_chat, **more), operation(is_chat=is_chat), PROFILES[KINDS[telling]])
    return json.loads(body), going_on


def broken_after(count: int, telling: TokenTelling, *, is_chat: bool, **more: object) -> tuple[bytes, TokenRecord]:
    """What the client has got after so many events, and what is known of them."""
    body, _ = sent_and_going_on(telling, is_chat=is_chat, **more)
    record, reader = TokenRecord(telling, operation(is_chat=is_chat), LIMIT), reader_of(is_chat=is_chat)
    given = list(events(telling, body, is_chat=is_chat))[:count]
    return b"".join([reader.feed(record.strip(event)) for event in given]), record


def whole(count: int, telling: TokenTelling, *, is_chat: bool, **more: object) -> bytes:
    """What the client gets in all when the first engine breaks off after so many events."""
    body, going_on = sent_and_going_on(telling, is_chat=is_chat, **more)
    record, reader = TokenRecord(telling, operation(is_chat=is_chat), LIMIT), reader_of(is_chat=is_chat)
    given = list(events(telling, body, is_chat=is_chat))[:count]
    got = b"".join([reader.feed(record.strip(event)) for event in given])
    place = run(seam.find(record, going_on.members, going_on.limit, "second"), telling)
    rest = json.loads(going_on.rest(place.prompt, place.kept, "m"))
    chunks = ContinuedChunks(
        record,
        engine="second",
        kept=place.kept,
        repeats=place.repeats,
        wants_usage=going_on.wants_usage,
        max_event_bytes=LIMIT,
    )
    for event in events(telling, rest, is_chat=False):
        got += reader.feed(chunks.feed(event))
    return got + reader.end()


def count_of_events(telling: TokenTelling, *, is_chat: bool, **more: object) -> int:
    body, _ = sent_and_going_on(telling, is_chat=is_chat, **more)
    return len(list(events(telling, body, is_chat=is_chat)))


CASES = [
    pytest.param(telling, is_chat, stop, id=f"{telling}-{'chat' if is_chat else 'text'}-{'stop' if stop else 'none'}")
    for telling in TELLINGS
    for is_chat in (True, False)
    for stop in ((), (STOP,))
]


@pytest.mark.parametrize(("telling", "is_chat", "stop"), CASES)
def test_wherever_it_breaks_off_no_character_is_lost_and_none_comes_twice(
    telling: TokenTelling, is_chat: bool, stop: tuple[str, ...]
) -> None:
    more = {"stop": stop[0]} if stop else {}
    ways = 0
    for count in range(1, count_of_events(telling, is_chat=is_chat, **more) - 3):
        got, record = broken_after(count, telling, is_chat=is_chat, **more)
        if not record.ids or not text_of(got):
            continue
        ways += 1

        assert text_of(whole(count, telling, is_chat=is_chat, **more)) == TEXT, count

    assert ways > 5


@pytest.mark.parametrize("is_chat", [True, False])
@pytest.mark.parametrize("telling", TELLINGS)
def test_id_index_finish_and_usage_are_those_of_one_stream(telling: TokenTelling, is_chat: bool) -> None:
    got = whole(8, telling, is_chat=is_chat)
    chunks = chunks_of(got)

    assert {chunk["id"] for chunk in chunks} == {"id-0"}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk" if is_chat else "text_completion"}
    assert {choice["index"] for chunk in chunks for choice in chunk["choices"]} == {0}
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert [reason for reason in reasons if reason is not None] == ["stop"]
    assert got.endswith(b"data: [DONE]\n\n")
    if telling is TokenTelling.NUMBERS:
        usage = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
        assert [(each["prompt_tokens"], each["completion_tokens"]) for each in usage] == [(len(PROMPT), len(ANSWER))]
    else:
        timings = [chunk["timings"] for chunk in chunks if chunk.get("timings")]
        assert [each["prompt_n"] + each["cache_n"] for each in timings] == [len(PROMPT)]
        # A character of two tokens, of which one was told, is given as the one that it usually is.
        assert len(ANSWER) - 3 <= timings[0]["predicted_n"] <= len(ANSWER)


@pytest.mark.parametrize("is_chat", [True, False])
@pytest.mark.parametrize("telling", TELLINGS)
def test_the_client_gets_what_it_would_get_if_nobody_had_asked_for_tokens(telling: TokenTelling, is_chat: bool) -> None:
    plain = json.loads(body_of(is_chat=is_chat))
    body, _ = sent_and_going_on(telling, is_chat=is_chat)
    unasked = b"".join(events(telling, plain, is_chat=is_chat))
    stream = b"".join(events(telling, body, is_chat=is_chat))

    assert unasked != stream
    for size in (1, 2, 7, 50, 333, len(stream)):
        record = TokenRecord(telling, operation(is_chat=is_chat), LIMIT)
        pieces = [record.strip(stream[at : at + size]) for at in range(0, len(stream), size)]

        assert b"".join(pieces) == unasked
        assert record.text == TEXT
        assert record.why_not == ""


def test_the_prompt_of_tokens_and_the_tokens_of_the_answer_are_kept() -> None:
    _, record = broken_after(6, TokenTelling.NUMBERS, is_chat=True)

    assert record.prompt == list(PROMPT)
    assert record.ids.tolist() == ANSWER[:5]


def test_a_bound_on_the_answer_counts_what_is_there_already() -> None:
    _, going_on = sent_and_going_on(TokenTelling.NUMBERS, is_chat=True, max_tokens=9)
    _, record = broken_after(6, TokenTelling.NUMBERS, is_chat=True, max_tokens=9)
    place = run(seam.find(record, going_on.members, going_on.limit, "second"), TokenTelling.NUMBERS)

    assert json.loads(going_on.rest(place.prompt, place.kept, "m"))["max_tokens"] == 9 - place.kept


@pytest.mark.parametrize("telling", TELLINGS)
def test_where_all_tokens_are_there_the_last_is_written_again(telling: TokenTelling) -> None:
    _, going_on = sent_and_going_on(telling, is_chat=True)
    got, record = broken_after(10, telling, is_chat=True)

    place = run(seam.find(record, going_on.members, len(record.ids), "second"), telling)

    assert place.kept < len(record.ids)
    assert place.repeats
    assert text_of(got).endswith(place.repeats)


def test_another_text_than_the_client_has_ends_it() -> None:
    _, record = broken_after(6, TokenTelling.NUMBERS, is_chat=True)
    chunks = ContinuedChunks(record, engine="second", kept=1, repeats="abc", wants_usage=False, max_event_bytes=LIMIT)

    with pytest.raises(Broken, match="did not write what the client had already"):
        chunks.feed(b'data: {"choices":[{"index":0,"text":"ax","finish_reason":null}]}\n\n')


def test_an_answer_whose_tokens_say_another_text_does_not_go_on() -> None:
    _, going_on = sent_and_going_on(TokenTelling.NUMBERS, is_chat=True)
    _, record = broken_after(6, TokenTelling.NUMBERS, is_chat=True)
    record.strip(b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"more"},"finish_reason":null}]}\n\n')
    record.strip(b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"?"},"token_ids":[100]}]}\n\n')

    place = run(seam.find(record, going_on.members, None, "second"), TokenTelling.NUMBERS)

    assert place.repeats.endswith("more?")  # which the second engine will not write


@pytest.mark.parametrize(
    ("delta", "reason"),
    [
        ({"reasoning": "hm"}, "the model thinks in it"),
        ({"reasoning_content": "hm"}, "the model thinks in it"),
        ({"tool_calls": [{"index": 0}]}, "it calls a tool"),
    ],
)
def test_thinking_and_calls_are_noted(delta: Mapping[str, object], reason: str) -> None:
    record = TokenRecord(TokenTelling.NUMBERS, "chat", LIMIT)
    event = {"choices": [{"index": 0, "delta": delta, "finish_reason": None, "token_ids": [1]}]}
    record.strip(b"data: " + json.dumps(event).encode() + b"\n\n")

    assert record.why_not == reason


REFUSED: dict[str, object] = {
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "response_format": {"type": "json_object"},
    "n": 2,
    "logprobs": True,
    "seed": 1,
    "presence_penalty": 0.5,
    "frequency_penalty": 1,
    "min_tokens": 3,
    "structured_outputs": {"regex": "a"},
    "guided_json": {},
    "grammar": "root",
    "echo": True,
    "mirostat": 2,
    "include_stop_str_in_output": True,
    "return_token_ids": True,
    "something_new": 1,
    "prompt": [[1, 2], [3]],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_tokens_do_not_say_is_not_gone_on_with(name: str) -> None:
    body = json.dumps({**CHAT, name: REFUSED[name]}).encode()

    sent, going_on = continuable(body, "chat", PROFILES["vllm"])

    assert going_on.why_not == f"'{name}' is set"
    assert sent == body


@pytest.mark.parametrize(
    "more",
    [
        {"tools": []},
        {"tools": None, "n": 1, "logprobs": False, "presence_penalty": 0, "top_logprobs": 0},
        {"seed": 4, "temperature": 0},
        {"response_format": {"type": "text"}, "tool_choice": "none"},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 20, "stop": ["a"], "logit_bias": {"2": -100}},
        {"grammar": None},
    ],
)
def test_what_changes_nothing_is_no_reason(more: Mapping[str, object]) -> None:
    members = json_members.decode(json.dumps({**CHAT, **more}).encode())

    assert why_not(members, PROFILES["vllm"]) == why_not(members, PROFILES["llama_cpp"]) == ""


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}


@pytest.mark.parametrize("part", [PICTURE, SOUND, {"image": "x"}, {"type": "file", "file": {}}])
@pytest.mark.parametrize("kind", ["vllm", "llama_cpp"])
def test_a_chat_about_more_than_text_is_not_gone_on_with(kind: str, part: Mapping[str, object]) -> None:
    """Of a picture its prompt's tokens say only where it stands."""
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]}]
    body = json.dumps({**CHAT, "messages": messages}).encode()

    sent, going_on = continuable(body, "chat", PROFILES[kind])

    assert going_on.why_not == "it is not about text alone"
    assert sent == body


def test_a_chat_of_texts_however_they_are_written_may_go_on() -> None:
    parts = [{"type": "text", "text": "a"}, "b"]
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
    ]
    members = json_members.decode(json.dumps({**CHAT, "messages": messages}).encode())

    assert why_not(members, PROFILES["vllm"]) == ""


def test_bytes_that_are_no_character_are_written_again_as_the_client_has_them() -> None:
    _, going_on = sent_and_going_on(TokenTelling.PROBABILITIES, is_chat=True)
    record = TokenRecord(TokenTelling.PROBABILITIES, "chat", LIMIT)
    for number, text, told in ((100, "Gr", b"Gr"), (101, "\ufffd.", b"\xc3.")):
        logprobs = {"content": [{"id": number, "bytes": list(told)}]}
        choice = {"index": 0, "delta": {"content": text}, "logprobs": logprobs}
        record.strip(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")

    finding = seam.find(record, going_on.members, 2, "second")
    next(finding)
    finding.send(json.dumps({"tokens": [{"id": 100, "piece": "Gr"}, {"id": 101, "piece": [0xC3, 0x2E]}]}).encode())
    with pytest.raises(StopIteration) as end:
        finding.send(b'{"prompt": "hi"}')

    assert (end.value.value.kept, end.value.value.repeats) == (1, "\ufffd.")


def test_an_engine_that_tells_no_tokens_is_not_asked_for_any() -> None:
    body = json.dumps(CHAT).encode()

    for profile in (UNKNOWN, PROFILES["ollama"], PROFILES["remote"]):
        sent, going_on = continuable(body, "chat", profile)

        assert sent == body
        assert going_on.why_not == f"{profile.title} does not tell its tokens"


def test_the_rest_is_asked_for_with_what_chose_the_tokens_and_nothing_else() -> None:
    body = {**CHAT, "temperature": 0.5, "stop": ["x"], "max_completion_tokens": 20, "metadata": {"a": "b"}, "user": "u"}
    _, going_on = continuable(json.dumps(body).encode(), "chat", PROFILES["vllm"])

    assert json.loads(going_on.rest(b"[1,2]", 5, "theirs")) == {
        "temperature": 0.5,
        "stop": ["x"],
        "model": "theirs",
        "prompt": [1, 2],
        "stream": True,
        "max_tokens": 15,
    }


def test_a_completion_without_a_bound_has_the_engines_own() -> None:
    body = json.dumps({"model": "m", "prompt": "a", "stream": True}).encode()

    _, of_vllm = continuable(body, "text_completion", PROFILES["vllm"])
    _, of_embedded = continuable(body, "text_completion", PROFILES["llama_cpp"])

    assert (of_vllm.limit, of_embedded.limit) == (16, None)


def test_every_way_to_tell_tokens_is_asked_for_in_chats_and_completions() -> None:
    ways = [asked(telling, name) for telling in TokenTelling for name in ("chat", "text_completion")]

    assert all(ways)
    assert all(isinstance(msgspec.json.decode(value), bool | int) for way in ways for value in way.values())
