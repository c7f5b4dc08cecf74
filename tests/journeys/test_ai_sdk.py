"""The AI SDK's `@ai-sdk/openai-compatible`, current and as Easy Dataset pins it, against a real gateway."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.journeys.gateway import Gateway
from tests.journeys.javascript import AI_SCRIPT, NODE, printed

JOURNEYS = ("text", "stream", "stream_of_vllm", "tools", "reasoning", "cut_stream", "error")


@pytest.mark.parametrize("version", ["current", "0.2"])
@pytest.mark.parametrize("journey", JOURNEYS)
def test_the_ai_sdk_finds_what_it_expects(gateway: Gateway, node: Path, journey: str, version: str) -> None:
    assert printed([NODE, AI_SCRIPT.name, journey, gateway.base_url, version], node) == "done\n"


def test_every_journey_of_the_script_is_run() -> None:
    assert set(re.findall(r"^  async (\w+)\(", AI_SCRIPT.read_text(), re.MULTILINE)) == set(JOURNEYS)
