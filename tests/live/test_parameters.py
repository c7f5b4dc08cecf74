"""What vLLM refuses although clients send it, and what it reports of itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import httpx

from tests import ROOT
from tests.live.engines import Live

HI = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "stop": [" ", "a", "e"], "seed": 1}
UNKNOWN: dict[str, Any] = {"send_reasoning": True, "reasoning": True}
PARTS = [{"role": "user", "content": "Hi", "parts": [{"type": "text", "text": "Hi"}], "experimental_attachments": []}]


def adjusted(live: Live, path: str = "/v1/chat/completions", **fields: Any) -> str | None:
    """The adjustments that a response reports to its client."""
    answer = live.post(path, {**HI, **fields})
    assert answer.status_code == 200, answer.text
    adjusted: str | None = answer.headers.get("x-modelport-adjusted-params")
    return adjusted


def test_what_vllm_refuses_is_adjusted_and_named(live: Live) -> None:
    assert adjusted(live, max_tokens=8192, top_p=0, **UNKNOWN, messages=PARTS) == "max_tokens, top_p"
    assert adjusted(live, max_completion_tokens=1_000_000_000) == "max_completion_tokens"
    assert adjusted(live, max_tokens=2, tools=[], tool_choice="auto") == "tools"
    assert adjusted(live, max_tokens=2, tool_choice="auto") == "tool_choice"
    assert adjusted(live, max_tokens=2, top_p=1) is None


def test_a_completion_ends_where_its_bound_says_and_without_one_not_after_sixteen_tokens(live: Live) -> None:
    text = {"model": "tiny", "prompt": "Once", "ignore_eos": True}
    short = live.post("/v1/completions", {**text, "max_completion_tokens": 3})
    long = live.post("/v1/completions", {**text, "max_tokens": 100_000})

    assert short.json()["usage"]["completion_tokens"] == 3
    assert long.json()["usage"]["total_tokens"] == 2048


def test_vllm_tells_its_length_and_a_probe_what_it_can(live: Live) -> None:
    command = [sys.executable, "-m", "app", "probe", "tiny", "--state", live.status()["state_folder"], "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True)
    model = httpx.get(f"{live.url}/v1/models/tiny").json()

    assert (model["context_length"], model["backend"]) == (2048, "tiny")
    expected = {"chat": "verified", "completion": "verified", "logprobs": "verified", "vision": "failed"}
    assert {name: model["capabilities"].get(name) for name in expected} == expected
    assert json.loads(done.stdout)[0]["probes"][0]["version"]


def test_vllms_names_of_last_year_are_heeded_and_named(live: Live) -> None:
    hi = {"model": "tiny", "messages": HI["messages"], "max_tokens": 8, "temperature": 0}
    forms: dict[str, tuple[Any, str]] = {
        "guided_choice": (["perhaps", "never"], "perhaps|never"),
        "guided_regex": ("[ab]{3}", "[ab]{3}"),
        "guided_grammar": ('root ::= "xyz"', "xyz"),
        "guided_json": ({"enum": ["yes"]}, '"yes"'),
    }
    for name, (value, expected) in forms.items():
        answer = live.post("/v1/chat/completions", {**hi, name: value})

        assert re.fullmatch(expected, answer.json()["choices"][0]["message"]["content"]), name
        assert answer.headers["x-modelport-adjusted-params"] == name


def test_a_bound_that_is_wrong_is_never_none(live: Live) -> None:
    for wrong in ({"max_tokens": 10, "min_tokens": 50}, {"max_tokens": -7}, {"max_tokens": 1.5}, {"max_tokens": 0}):
        assert live.post("/v1/chat/completions", {**HI, **wrong}).status_code == 400
    empty = live.post("/v1/chat/completions", {**HI, "max_tokens": 2, "stop": ["", "x"]})
    assert (empty.status_code, empty.headers["x-modelport-adjusted-params"]) == (200, "stop")
