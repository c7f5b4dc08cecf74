"""Claude Code, on its default settings."""

from __future__ import annotations

import json
from typing import Any

from tests.agents.programs import Agent, Output, picture
from tests.agents.scripted import Calls, Engine, Refuses, Says
from tests.agents.test_codex import pictures

PLAIN = ("--output-format", "json", "--allowedTools", "Bash", "Read")
# What a turn with Anthropic's own models and tools leaves behind.
HISTORY: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "A thought.", "signature": ""},
    {"type": "redacted_thinking", "data": "x"},
    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
    {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
    {"type": "mcp_tool_use", "id": "m1", "name": "ask", "server_name": "s", "input": {}},
    {"type": "mcp_tool_result", "tool_use_id": "m1", "is_error": False, "content": [{"type": "text", "text": "eight"}]},
    {"type": "text", "text": "count: 12"},
    {"type": "text", "text": "34 rows"},
]


def result(output: Output) -> Any:
    """The last line of the output, which is the result."""
    line = next((line for line in reversed(output.out.splitlines()) if line.startswith("{")), "{}")
    return json.loads(line)


def test_a_turn_of_text(agent: Agent, engine: Engine) -> None:
    part = engine.play(Says("Hello from the engine."))

    output = agent.claude("Say hello.", *PLAIN)

    assert (output.code, result(output)["result"]) == (0, "Hello from the engine."), output.all
    assert len(part.seen) == 1
    assert {"Bash", "Read"} <= {tool["function"]["name"] for tool in part.seen[0]["tools"]}


def test_two_tools_at_once(agent: Agent, engine: Engine) -> None:
    part = engine.play(
        Calls([("Bash", {"command": "echo first"}), ("Bash", {"command": "echo second"})]), Says("Both done.")
    )

    output = agent.claude("Run both.", *PLAIN)

    assert (output.code, result(output)["result"]) == (0, "Both done."), output.all
    (called,) = [message for message in part.messages("assistant") if message.get("tool_calls")]
    results = {message["tool_call_id"]: message["content"] for message in part.messages("tool")}
    assert [call["id"] for call in called["tool_calls"]] == list(results)
    assert list(results.values()) == ["first", "second"]


def test_a_picture_from_a_tool(agent: Agent, engine: Engine) -> None:
    path = picture(agent.work / "red.png")
    part = engine.play(Calls([("Read", {"file_path": str(path)})]), Says("It is red."))

    output = agent.claude("Look at red.png.", *PLAIN)

    assert (output.code, result(output)["result"]) == (0, "It is red."), output.all
    assert pictures(part.messages("user")) == 1


def test_a_history_goes_on(agent: Agent, engine: Engine) -> None:
    path = picture(agent.work / "red.png")
    engine.play(Calls([("Bash", {"command": "echo first"}), ("Read", {"file_path": str(path)})]), Says("Seen."))
    assert result(agent.claude("Look.", *PLAIN))["result"] == "Seen."
    part = engine.play(Says("As before."))

    output = agent.claude("And now?", "--continue", *PLAIN)

    assert (output.code, result(output)["result"]) == (0, "As before."), output.all
    assert pictures(part.messages("user")) == 1
    assert len(part.messages("tool")) == 2
    assert "And now?" in json.dumps(part.messages("user"))


def test_a_history_with_every_kind_of_block_goes_on(agent: Agent, engine: Engine) -> None:
    engine.play(Calls([("ToolSearch", {"query": "select:WebFetch"})]), Says("Seen."))
    assert result(agent.claude("Look.", *PLAIN))["result"] == "Seen."
    (session,) = (agent.home / ".claude" / "projects").rglob("*.jsonl")
    lines = [json.loads(line) for line in session.read_text().splitlines()]
    [line for line in lines if line["type"] == "assistant"][-1]["message"]["content"] = HISTORY
    session.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    part = engine.play(Says("As before."))

    output = agent.claude("And now?", "--continue", *PLAIN)

    assert (output.code, result(output)["result"]) == (0, "As before."), output.all
    assert [message["content"] for message in part.messages("tool")] == ["WebFetch"]
    last = part.messages("assistant")[-1]
    assert (last["content"], last["reasoning"]) == ("count: 12\n34 rows", "A thought.")
    assert "WebFetch" in [tool["function"]["name"] for tool in part.seen[-1]["tools"]]


def test_a_prompt_that_is_too_long(agent: Agent, engine: Engine) -> None:
    engine.play(*[Refuses()] * 20)

    output = agent.claude("Say hello.", *PLAIN)

    assert output.code != 0
    assert "prompt is too long" in output.all.lower(), output.all


def test_a_stream_that_breaks_is_never_taken_for_whole(agent: Agent, engine: Engine) -> None:
    engine.play(Says("Half of", breaks=True), *[Says("The whole answer.")] * 20)

    output = agent.claude("Say hello.", *PLAIN)

    assert result(output).get("result") != "Half of", output.all
    assert result(output)["result"] == "The whole answer.", output.all


def test_its_first_prompt_does_not_fit_a_small_model_and_it_is_told_so(small: Agent) -> None:
    output = small.claude("Say hello.", *PLAIN)

    assert output.code != 0
    assert "prompt is too long" in output.all.lower(), output.all
