"""Scenarios that only tests of clients need: a call of the first tool that is offered, and reasoning before a response.

The shapes are vLLM's; where the last message is a tool's result, the response is text.
"""

from __future__ import annotations

import json

from tests.fakes import wire
from tests.fakes.answers import ok
from tests.fakes.peer import Peer
from tests.fakes.scenario import Act, Scenario, Stage

ARGUMENTS = ('{"a": 7', ', "b": 5}')
THOUGHTS = ("Seven and", " five.")


async def tool_call(peer: Peer) -> None:
    """Calls the tool that is named, else the first one."""
    assert peer.record is not None
    fields = json.loads(peer.record.body)
    tools = fields.get("tools") or ()
    if not tools or fields["messages"][-1]["role"] == "tool":
        await ok(peer)
        return
    choice = fields.get("tool_choice")
    name = choice["function"]["name"] if isinstance(choice, dict) else tools[0]["function"]["name"]
    called = {"id": "chatcmpl-tool-1", "type": "function", "function": {"name": name, "arguments": "".join(ARGUMENTS)}}
    if not peer.ask.stream:
        await _whole(peer, {"role": "assistant", "content": None, "tool_calls": [called]}, "tool_calls")
        return
    first = {**called, "index": 0, "function": {"name": name, "arguments": ""}}
    deltas: list[wire.Json] = [{"role": "assistant", "content": ""}, {"tool_calls": [first]}]
    deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in ARGUMENTS]
    await _stream(peer, deltas, "tool_calls")


def thinking(field: str) -> Act:
    """A response with reasoning before it, in a field of that name."""

    async def act(peer: Peer) -> None:
        if not peer.ask.stream:
            message = {"role": "assistant", "content": wire.TEXT, field: "".join(THOUGHTS)}
            await _whole(peer, message, "stop")
            return
        deltas: list[wire.Json] = [{"role": "assistant", "content": ""}]
        deltas += [{field: thought} for thought in THOUGHTS] + [{"content": word} for word in wire.WORDS]
        await _stream(peer, deltas, "stop")

    return act


async def _whole(peer: Peer, message: wire.Json, finish_reason: str) -> None:
    answer = wire.answer(peer.ask)
    answer["choices"] = [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}]
    await peer.send_json(answer)


async def _stream(peer: Peer, deltas: list[wire.Json], finish_reason: str) -> None:
    frame = wire.piece(peer.ask, "")
    ends = [None] * (len(deltas) - 1) + [finish_reason]
    events = [
        wire.sse({**frame, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": end}]})
        for delta, end in zip(deltas, ends, strict=True)
    ]
    if peer.ask.include_usage:
        events.append(wire.sse(wire.usage_piece(peer.ask)))
    await peer.send_stream(*events, wire.DONE)
    await peer.send(wire.LAST_CHUNK)


TOOLS = {
    "tool_call": Scenario(tool_call, Stage.FINE),
    "thinking": Scenario(thinking("reasoning"), Stage.FINE),
    "thinking_old": Scenario(thinking("reasoning_content"), Stage.FINE),  # vLLM before 0.11, llama.cpp
}
