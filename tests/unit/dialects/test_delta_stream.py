"""Streams of deltas: the same as if their engine had written OpenAI's chunks and these were read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.dialects.anthropic.response import AnthropicEncoder
from app.dialects.delta_stream import DeltaStream
from app.dialects.openai.chunk_encoder import ChunkEncoder
from app.dialects.openai.normalize import GAVE_UP
from app.dialects.openai.stream_reader import DONE, StreamReader
from app.dialects.reasoning import Reasoning
from app.dialects.usage import Usage
from backends.errors import Disconnected, EngineFailed
from backends.http.delta import CallDelta, Delta, TokenCounts
from tests.rigs.read_answer import response_context

_TEXTS = st.sampled_from(["<think>", "</think>", "<th", "ink>", "</", "\n", "two", "zwölf 🙂", 'say "no"'])
_FIRST = st.sampled_from(["", "<think>", "one"])
_DELTAS = st.one_of(
    st.builds(Delta, text=_TEXTS),
    st.builds(Delta, thinking=st.sampled_from(["hm", "\n"])),
    st.builds(Delta, text=_TEXTS, thinking=st.just("so")),
)


def end(finish: str = "stop", usage: TokenCounts | None = None) -> Delta:
    return Delta(finish=finish, usage=usage)


def stream(reasoning: Reasoning = "keep", *, hides_usage: bool = False) -> DeltaStream:
    context = response_context(reasoning=reasoning)
    return DeltaStream(context, ChunkEncoder(context, hides_usage=hides_usage))


def deltas_of(events: bytes) -> list[Any]:
    """Each chunk's delta, its members in any order."""
    chunks = [json.loads(event[6:]) for event in events.split(b"\n\n") if event and b"[DONE]" not in event]
    return [(chunk["choices"], chunk.get("usage")) for chunk in chunks]


@settings(max_examples=300, deadline=None)
@given(
    _FIRST,
    st.lists(_DELTAS, max_size=8),
    st.sampled_from([None, TokenCounts(3, 5)]),
    st.sampled_from(["keep", "split", "split_opened"]),
    st.booleans(),
)
def test_deltas_are_read_as_the_chunks_that_say_the_same(
    first: str, later: list[Delta], usage: TokenCounts | None, reasoning: Reasoning, hides_usage: bool
) -> None:
    deltas = [Delta(first), *later, end(usage=usage)]
    written = ChunkEncoder(response_context(), hides_usage=False)
    reader = StreamReader(response_context(reasoning=reasoning), hides_usage=hides_usage, max_event_bytes=1 << 20)
    reader._compilations_left = 0

    chunks = b"".join(reader.feed(written.next(delta)) for delta in deltas)
    one = stream(reasoning, hides_usage=hides_usage)
    events = one.feed(deltas) + one.end()

    assert deltas_of(events) == deltas_of(chunks)
    assert events.endswith(DONE)
    assert one.settle() == reader.settle()
    assert (one.has_token, one.is_finished) == (reader.has_token, reader.is_finished)


def test_calls_are_written_with_everything_that_a_client_needs() -> None:
    call = CallDelta(0, True, "c1", "f", "{}")

    events = stream().feed([Delta("", calls=(call,)), Delta(calls=(CallDelta(0, False, "c1", "", "x"),)), end()])

    first, second, _ = (choices[0]["delta"] for choices, _ in deltas_of(events))
    function = {"name": "f", "arguments": "{}"}
    assert first["tool_calls"] == [{"index": 0, "id": "c1", "type": "function", "function": function}]
    assert second["tool_calls"] == [{"index": 0, "function": {"arguments": "x"}}]


@pytest.mark.parametrize("finish", ["error", "whatever"])
def test_an_answer_that_its_engine_gave_up_is_an_error_behind_what_came(finish: str) -> None:
    one = stream()

    assert deltas_of(one.feed([Delta("a"), end(finish)]))[0][0][0]["delta"]["content"] == "a"
    assert isinstance(one.error, EngineFailed)
    assert one.error.message == GAVE_UP
    assert one.feed([Delta("b")]) == b""


def test_a_stream_without_its_end_is_not_an_answer() -> None:
    one = stream()
    one.feed([Delta("a"), Delta("b")])

    with pytest.raises(Disconnected):
        one.end()
    assert one.settle() == Usage(0, 2, is_counted=True)


def test_what_comes_behind_the_end_is_not_read() -> None:
    one = stream()
    whole = one.feed([Delta("a"), end(), Delta("b"), end()])

    assert whole.count(DONE) == 1
    assert b'"b"' not in whole
    assert one.feed([Delta("c")]) == b""


def test_another_dialect_gets_its_own_events_and_ends_them_itself() -> None:
    one = DeltaStream(response_context(reasoning="split"), AnthropicEncoder("mine", "abc"))

    events = one.feed([Delta("<think>"), Delta("hm</think>"), Delta("two"), end(usage=TokenCounts(3, 5))]) + one.end()

    kinds = [line[7:] for line in events.decode().splitlines() if line.startswith("event: ")]
    block = ["content_block_start", "content_block_delta"]
    assert kinds == ["message_start", *block, "content_block_stop", *block]
    assert one.settle() == Usage(3, 5, "stop")
