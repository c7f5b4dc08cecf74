"""Prompts that a model was trained on, over the real engine: with our chat template it says what LLaMA-Factory says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.reference.chats import CHATS
from tests import ROOT
from tests.live.engines import Live

RECORDED = ROOT / "tests/recorded/llamafactory"
PROMPTS: dict[str, dict[str, str]] = json.loads((RECORDED / "prompts.json").read_text())
TOLD_A_DATE = "llama3"  # with tools, and the recorded day is over


@pytest.mark.parametrize("template", sorted(set(PROMPTS) - {TOLD_A_DATE}))
def test_vllm_says_what_llamafactory_says(live: Live, template: str) -> None:
    engine = live.group("tiny")
    source = (RECORDED / f"{template}.jinja").read_text().rstrip("\n")

    said = {}
    for name in PROMPTS[template]:
        body: dict[str, Any] = {"model": "tiny", "messages": CHATS[name].messages, "chat_template": source}
        asked = body | ({"tools": CHATS[name].tools} if CHATS[name].tools else {})
        tokens = engine.ask("/tokenize", asked).json()["tokens"]
        said[name] = engine.ask("/detokenize", {"model": "tiny", "tokens": tokens}).json()["prompt"]

    assert len(said) >= 11
    assert said == PROMPTS[template]
