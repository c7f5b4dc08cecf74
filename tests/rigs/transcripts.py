"""Recorded exchanges with a real Ollama daemon (0.33.0-rc2), one on each line of a file.

Recorded byte by byte and then shortened: HTTP's chunks are `pieces`, only headers that matter are kept, of long streams
the middle is left out (`left_out` pieces), of `/api/show` the licence and the tensors. The bodies of 180 and 182
were recorded in part and are rebuilt to their recorded length.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests import RECORDED

Json = dict[str, Any]


@dataclass(frozen=True)
class Transcript:
    """One exchange."""

    name: str
    method: str
    path: str
    status: int
    type: str
    pieces: list[str]
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cors: dict[str, str] = field(default_factory=dict)
    allow: str = ""
    left_out: int = 0

    @property
    def asked(self) -> Json:
        """The request's body, decoded."""
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    @property
    def answer(self) -> str:
        """The response's whole body."""
        return "".join(self.pieces)

    @property
    def objects(self) -> list[Any]:
        """The JSON of the response: its body, its lines, or its events' data (without the end mark)."""
        lines = [line.removeprefix("data: ") for line in self.answer.splitlines() if line.strip()]
        return [json.loads(line) for line in lines if line.startswith("{")]


@cache
def transcripts() -> dict[str, Transcript]:
    """All exchanges by name, in the order in which they were recorded."""
    lines = (RECORDED / "ollama_transcripts.jsonl").read_text().splitlines()
    transcripts = [Transcript(**json.loads(line)) for line in lines]
    return {each.name: each for each in transcripts}
