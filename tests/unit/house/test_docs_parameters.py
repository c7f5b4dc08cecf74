"""docs/parameters.md is the table in app/dialects/parameters/table.py, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from app.dialects.parameters.table import KINDS, OWN, SPECIFIED, Fate, Row
from tests import ROOT

PAGE = ROOT / "docs" / "parameters.md"
TITLES = {
    "chat": "Chats",
    "text_completion": "Completions",
    "embeddings": "Embeddings",
    "transcription": "Transcriptions",
}


def cell(fate: Fate) -> str:
    """What becomes of a parameter, in words."""
    unless = ", ".join(f"`{value}`" for value in sorted(fate.unless))
    said = f"{fate.act}, but for {unless}" if unless else str(fate.act)
    return f"{said}: {fate.note}" if fate.note else said


def lines(rows: Mapping[str, Row]) -> Iterator[str]:
    """One table."""
    yield "| parameter | `vllm` | `llama_cpp` | `ollama` |"
    yield "|---|---|---|---|"
    for name, row in sorted(rows.items()):
        yield f"| `{name}` | " + " | ".join(cell(row[kind]) for kind in KINDS) + " |"


def tables() -> dict[str, str]:
    """Heading → its table."""
    found = {f"## {TITLES[operation]}": "\n".join(lines(rows)) for operation, rows in SPECIFIED.items()}
    return found | {"## What engines have of their own": "\n".join(lines({**OWN["chat"], **OWN["text_completion"]}))}


@pytest.mark.parametrize(("heading", "table"), tables().items(), ids=tables())
def test_each_table_of_the_page_is_the_one_in_the_code(heading: str, table: str) -> None:
    section = PAGE.read_text().partition(f"{heading}\n")[2].partition("\n## ")[0]

    assert "\n".join(line for line in section.splitlines() if line.startswith("|")) == table
