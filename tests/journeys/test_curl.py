"""curl, as it is printed and as people use it."""

from __future__ import annotations

import json
import os
import subprocess

from tests.journeys.gateway import KEY, MODEL, QUESTION, Gateway

CURL_PARTIAL_FILE = 18


def shell(line: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", line], env={**os.environ, **env}, capture_output=True, text=True, timeout=60)


def chat(gateway: Gateway, model: str) -> subprocess.CompletedProcess[str]:
    """A streamed chat; `-N` shows each event as it comes."""
    body = json.dumps({"model": model, "messages": QUESTION, "max_tokens": 4, "stream": True})
    return shell(f"curl -sSN {gateway.base_url}/chat/completions -H 'Content-Type: application/json' -d '{body}'")


def test_the_line_in_the_banner_works_as_it_is_printed(gateway: Gateway) -> None:
    answer = shell(gateway.curl)

    assert answer.returncode == 0
    assert json.loads(answer.stdout)["choices"][0]["message"]["content"]


def test_the_line_in_the_banner_takes_the_key_from_the_shell(locked: Gateway) -> None:
    answer, refused = shell(locked.curl, API_KEY=KEY), shell(locked.curl, API_KEY="wrong")

    assert json.loads(answer.stdout)["choices"][0]["message"]["content"]
    assert json.loads(refused.stdout)["error"]["code"] == "invalid_api_key"


def test_a_whole_stream_ends_well(gateway: Gateway) -> None:
    answer = chat(gateway, MODEL)

    assert answer.returncode == 0
    assert answer.stdout.endswith("data: [DONE]\n\n")


def test_a_cut_stream_ends_with_an_error(gateway: Gateway) -> None:
    answer = chat(gateway, "fake/fault:fin_mid_stream")

    assert answer.returncode == CURL_PARTIAL_FILE
    assert "[DONE]" not in answer.stdout
    last = answer.stdout.rstrip().rpartition("data: ")[2]
    assert json.loads(last)["error"]["code"] == "engine_disconnected"
