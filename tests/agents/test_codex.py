"""Codex CLI, on its default settings."""

from __future__ import annotations

import json
from typing import Any

from tests.agents.programs import Agent, Output, picture
from tests.agents.scripted import Calls, Engine, Refuses, Says

PLAIN = ("--skip-git-repo-check", "--json")
FOUND = {"type": "function", "name": "found", "description": "d", "strict": False, "parameters": {"type": "object"}}
# What a session with OpenAI's own models, or with other settings, leaves behind.
HISTORY: list[dict[str, Any]] = [
    {"type": "reasoning", "summary": [], "content": None, "encrypted_content": "x"},
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "A thought."}]},
    {
        "type": "function_call",
        "call_id": "h1",
        "name": "spawn_agent",
        "namespace": "multi_agent_v1",
        "arguments": "{}",
    },
    {"type": "function_call_output", "call_id": "h1", "output": "one"},
    {"type": "custom_tool_call", "call_id": "h2", "name": "apply_patch", "input": "*** Begin Patch"},
    {"type": "custom_tool_call_output", "call_id": "h2", "output": "two"},
    {"type": "local_shell_call", "call_id": "h3", "status": "completed", "action": {"type": "exec", "command": ["ls"]}},
    {"type": "function_call_output", "call_id": "h3", "output": "three"},
    {"type": "tool_search_call", "call_id": "h4", "execution": "client", "arguments": {"query": "q"}},
    {
        "type": "tool_search_output",
        "call_id": "h4",
        "status": "completed",
        "execution": "client",
        "tools": [FOUND],
    },
    {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}},
    {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "iVBORw0KGgo="},
]


def messages(output: Output) -> list[str]:
    """The messages that the agent shows as the model's."""
    events = [json.loads(line) for line in output.out.splitlines() if line.startswith("{")]
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    return [item["text"] for item in items if item["type"] == "agent_message"]


def test_a_turn_of_text(agent: Agent, engine: Engine) -> None:
    part = engine.play(Says("Hello from the engine."))

    output = agent.codex(*PLAIN, "Say hello.")

    assert (output.code, messages(output)) == (0, ["Hello from the engine."]), output.all
    assert len(part.seen) == 1


def test_two_tools_at_once(agent: Agent, engine: Engine) -> None:
    part = engine.play(
        Calls([("exec_command", {"cmd": "echo first"}), ("exec_command", {"cmd": "echo second"})]), Says("Both done.")
    )

    output = agent.codex(*PLAIN, "Run both.")

    assert messages(output)[-1:] == ["Both done."], output.all
    (called,) = [message for message in part.messages("assistant") if message.get("tool_calls")]
    results = {message["tool_call_id"]: message["content"] for message in part.messages("tool")}
    assert [call["id"] for call in called["tool_calls"]] == list(results)
    assert [word in text for word, text in zip(("first", "second"), results.values(), strict=True)] == [True, True]


def test_a_tool_in_a_namespace(agent: Agent, engine: Engine) -> None:
    """The agent knows its own tool by the name that it gave it."""
    part = engine.play(Calls([("wait_agent", {"targets": ["none"]})]), Says("Waited."))

    output = agent.codex(*PLAIN, "Wait.")

    assert messages(output)[-1:] == ["Waited."], output.all
    (result,) = part.messages("tool")
    assert "unsupported call" not in result["content"]


def test_a_picture_from_a_tool(agent: Agent, engine: Engine) -> None:
    path = picture(agent.work / "red.png")
    part = engine.play(Calls([("view_image", {"path": str(path)})]), Says("It is red."))

    output = agent.codex(*PLAIN, "Look at red.png.")

    assert messages(output)[-1:] == ["It is red."], output.all
    assert pictures(part.messages("user")) == 1


def test_a_history_goes_on(agent: Agent, engine: Engine) -> None:
    path = picture(agent.work / "red.png")
    engine.play(Calls([("exec_command", {"cmd": "echo first"}), ("view_image", {"path": str(path)})]), Says("Seen."))
    assert messages(agent.codex(*PLAIN, "Look."))[-1:] == ["Seen."]
    part = engine.play(Says("As before."))

    output = agent.codex("resume", "--last", *PLAIN, "And now?")

    assert messages(output)[-1:] == ["As before."], output.all
    assert pictures(part.messages("user")) == 1
    assert len(part.messages("tool")) == 2
    assert "And now?" in json.dumps(part.messages("user")[-1])


def test_a_history_with_every_kind_of_item_goes_on(agent: Agent, engine: Engine) -> None:
    engine.play(Says("Seen."))
    assert messages(agent.codex(*PLAIN, "Look.")) == ["Seen."]
    (session,) = (agent.home / ".codex" / "sessions").rglob("*.jsonl")
    lines = session.read_text().splitlines()
    for item in HISTORY:
        line = json.loads(lines[-1]) | {"ordinal": len(lines), "type": "response_item", "payload": item}
        lines.append(json.dumps(line))
    session.write_text("\n".join(lines) + "\n")
    part = engine.play(Says("As before."))

    output = agent.codex("resume", "--last", *PLAIN, "And now?")

    assert messages(output)[-1:] == ["As before."], output.all
    told = part.seen[-1]["messages"]
    calls = [call["function"]["name"] for message in told for call in message.get("tool_calls", ())]
    assert calls == ["multi_agent_v1__spawn_agent", "apply_patch", "local_shell", "tool_search"]
    assert [message["content"] for message in part.messages("tool")] == ["one", "two", "three", "found"]
    assert "A thought." in json.dumps(part.messages("assistant"))
    assert "found" in [tool["function"]["name"] for tool in part.seen[-1]["tools"]]


def test_a_prompt_that_is_too_long(agent: Agent, engine: Engine) -> None:
    engine.play(*[Refuses()] * 20)

    output = agent.codex(*PLAIN, "Say hello.")

    assert output.code != 0
    assert "context window" in output.all.lower(), output.all


def test_a_stream_that_breaks_is_asked_for_again(agent: Agent, engine: Engine) -> None:
    part = engine.play(Says("Half of", breaks=True), Says("The whole answer."))

    output = agent.codex(*PLAIN, "Say hello.")

    assert messages(output) == ["The whole answer."], output.all
    assert len(part.seen) == 2


def test_its_first_prompt_does_not_fit_a_small_model_and_it_is_told_so(small: Agent) -> None:
    output = small.codex(*PLAIN, "Say hello.")

    assert output.code != 0
    assert "context window" in output.all.lower(), output.all


def pictures(messages: list[dict[str, Any]]) -> int:
    """How many pictures are in these messages, as data."""
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    return sum(part["type"] == "image_url" and part["image_url"]["url"].startswith("data:image/") for part in parts)
