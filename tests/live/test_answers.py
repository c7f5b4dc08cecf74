"""What a client gets through the gateway is what the engine itself sends, but for the edits in docs/wire.md."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from backends.endpoint import Endpoint
from backends.vllm.argv import PINNED, SWITCHES, TASKS, VALUES
from backends.vllm.config import VllmConfig
from backends.vllm.engine import Vllm
from tests.live.engines import MODELS, VLLM, Live, Record

CHAT: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Say something."}],
    "max_tokens": 24,
    "temperature": 0,
    "seed": 1,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"hot": {"type": "boolean"}}, "required": ["hot"]},
    },
}
SCHEMA = {"type": "object", "properties": {"n": {"type": "boolean"}}, "required": ["n"], "additionalProperties": False}
LIMIT = 200  # tokens of what random weights may go on with
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT),
    "stream": ("/v1/chat/completions", {**CHAT, "stream": True}),
    "stream with usage": (
        "/v1/chat/completions",
        {**CHAT, "stream": True, "stream_options": {"include_usage": True}},
    ),
    "named tool": (
        "/v1/chat/completions",
        {
            **CHAT,
            "max_tokens": LIMIT,
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
        },
    ),
    "JSON mode": (
        "/v1/chat/completions",
        {
            **CHAT,
            "max_tokens": LIMIT,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
        },
    ),
    "logprobs": ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 3}),
    "completion": ("/v1/completions", {"model": "tiny", "prompt": "A", "max_tokens": 8, "temperature": 0}),
    "streamed completion": (
        "/v1/completions",
        {"model": "tiny", "prompt": "A", "max_tokens": 8, "temperature": 0, "stream": True},
    ),
}
# Of one answer, never of two.
OWN = ("id", "created")


def comparable(event: Any) -> Any:
    """The event without what differs from response to response."""
    if isinstance(event, dict):
        return {key: comparable(value) for key, value in event.items() if key not in OWN}
    return [comparable(each) for each in event] if isinstance(event, list) else event


def events(body: str) -> list[Any]:
    """The data of every event, the end mark too; without vLLM's fingerprint, which is in its very last event only."""
    lines = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    read = [data if data == "[DONE]" else comparable(json.loads(data)) for data in lines]
    for event in read:
        if isinstance(event, dict):
            event.pop("system_fingerprint", None)
    return joined(read)


def joined(events: list[Any]) -> list[Any]:
    """The same events, with neighbours that carry text joined: how many tokens are in an event depends on how busy vLLM
    is.
    """
    whole: list[Any] = []
    before: dict[str, Any] | None = None
    for event in events:
        carrier = _carrier(event)
        if carrier is not None and before is not None:
            key = "text" if "text" in carrier else "content"
            carrier[key] = before[key] + carrier[key]
            whole[-1] = event
        else:
            whole.append(event)
        before = carrier
    return whole


def _carrier(event: Any) -> dict[str, Any] | None:
    """The part of the event that holds its text, if that is all it is for."""
    choices = event["choices"] if isinstance(event, dict) else []
    carrier = choices[0].get("delta", choices[0]) if choices else {}
    return carrier if ("content" in carrier or "text" in carrier) and "role" not in carrier else None


@pytest.mark.parametrize("name", REQUESTS)
def test_an_answer_is_the_engines_own(live: Live, name: str) -> None:
    path, body = REQUESTS[name]
    group = live.group("tiny")

    theirs, ours = group.ask(path, body), live.post(path, body)

    assert (ours.status_code, theirs.status_code) == (200, 200), (ours.text, theirs.text)
    if body.get("stream"):
        assert events(ours.text) == events(theirs.text)
    else:
        assert comparable(ours.json()) == comparable(theirs.json())


def test_a_named_tool_is_called_and_json_is_json(live: Live, record_property: Record) -> None:
    tool = live.post(*REQUESTS["named tool"]).json()
    text = live.post(*REQUESTS["JSON mode"]).json()["choices"][0]

    (call,) = tool["choices"][0]["message"]["tool_calls"]
    record_property("arguments of the named tool", f"{call['function']['arguments']!r:.80}")
    record_property("JSON mode", f"{text['message']['content']!r:.80}")
    assert call["function"]["name"] == "weather"
    json.loads(call["function"]["arguments"])  # any value: with its hermes parser, vLLM holds them to no schema
    assert list(json.loads(text["message"]["content"])) == ["n"]


def test_the_sdk_streams_to_the_end(live: Live) -> None:
    with OpenAI(base_url=live.base_url, api_key="none", max_retries=0) as client:
        chunks = list(client.chat.completions.create(**CHAT, stream=True))

    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("path", ["/sleep?level=1", "/wake_up", "/v1/load_lora_adapter", "/collective_rpc"])
def test_an_operators_route_of_the_engine_is_no_route_of_the_gateway(live: Live, path: str) -> None:
    assert live.post(path, {}).status_code == 404


def test_it_listens_on_this_machine_only(live: Live) -> None:
    assert live.group("tiny").listeners() == {"127.0.0.1"}


def test_every_process_of_it_carries_our_tag(live: Live) -> None:
    group = live.group("tiny")

    unmarked = [pid for pid in group.pids if b"MODELPORT_MARK=" not in Path(f"/proc/{pid}/environ").read_bytes()]

    assert len(group.pids) >= 3
    assert unmarked == []


def test_only_its_key_opens_it_and_no_secret_is_in_its_command_line(live: Live) -> None:
    group = live.group("tiny")
    key = group.environ("VLLM_API_KEY")

    refused = httpx.post(f"http://127.0.0.1:{group.port}/v1/completions", json={"model": "tiny", "prompt": "a"})

    assert refused.status_code == 401
    command = Path(f"/proc/{group.server}/cmdline").read_text()
    assert key not in command
    assert live.errors is not None
    assert key not in live.errors.read_text()


async def test_it_sleeps_and_wakes_and_takes_adapters(live: Live) -> None:
    group = live.group("tiny")
    values = {"kind": "vllm", "model": str(MODELS / "tiny"), "sleep": 1, "enable_lora": True}
    engine = Vllm("tiny", VllmConfig.model_validate(values))
    headers = {"authorization": f"Bearer {group.environ('VLLM_API_KEY')}"}
    endpoint = Endpoint("tiny", 1, f"http://127.0.0.1:{group.port}/v1", headers)
    assert engine.sleeper is not None
    assert engine.adapters is not None

    await engine.sleeper.sleep(endpoint, 1)
    assert group.ask("/is_sleeping").json() == {"is_sleeping": True}
    await engine.sleeper.wake_up(endpoint)
    assert group.ask("/is_sleeping").json() == {"is_sleeping": False}
    await engine.warm_up(endpoint)

    for _ in range(2):
        await engine.adapters.load(endpoint, "random", str(MODELS / "tiny-lora"))
    assert await engine.adapters.listed(endpoint) == ("random",)
    base = group.ask("/v1/chat/completions", CHAT).json()["choices"][0]["message"]["content"]
    tuned = group.ask("/v1/chat/completions", {**CHAT, "model": "random"}).json()["choices"][0]["message"]["content"]
    await engine.adapters.unload(endpoint, "random")
    assert tuned != base
    assert await engine.adapters.listed(endpoint) == ()

    probe = await engine.probe(endpoint)
    assert (probe.is_up, probe.models, probe.in_flight) == (True, ("tiny",), 0)
    assert probe.progress is not None
    assert probe.progress[0] > 0


def test_every_flag_is_one_of_the_real_vllm() -> None:
    printed = subprocess.run(
        [VLLM / "bin/vllm", "serve", "--help=all"], capture_output=True, text=True, check=True
    ).stdout
    ours = {
        *VALUES.values(),
        *SWITCHES.values(),
        *PINNED,
        *(flag.partition("=")[0] for flags in TASKS.values() for flag in flags),
    }
    ours |= {"--host", "--port", "--served-model-name", "--enable-auto-tool-choice", "--override-generation-config"}
    ours |= {"--allowed-media-domains", "--enable-lora", "--max-loras", "--max-lora-rank", "--enable-sleep-mode"}
    ours |= {"--headless", "--shutdown-timeout", "--no-enable-log-requests", "--disable-uvicorn-access-log"}

    assert [flag for flag in sorted(ours) if not re.search(rf"(?m)(^|[\s,]){flag}\b(?!-)", printed)] == []
