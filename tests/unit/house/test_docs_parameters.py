"""docs/parameters.md is the table in app/dialects/parameters/table.py, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from app.dialects.parameters.table import OWN, SPECIFIED, fates
from backends.engine_profile import Fate
from backends.kinds import FOLDERS, PROFILES
from tests import ROOT

KINDS = ("vllm", "llama_cpp", "ollama")
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


def lines(names: Iterable[str], *operations: str) -> Iterator[str]:
    """One table, of these parameters in these operations: where several have one, the last counts."""
    columns: list[dict[str, Fate]] = [
        {name: fate for operation in operations for name, fate in fates(operation, PROFILES[kind]).items()}
        for kind in KINDS
    ]
    yield "| parameter | `vllm` | `llama_cpp` | `ollama` |"
    yield "|---|---|---|---|"
    for name in sorted(names):
        yield f"| `{name}` | " + " | ".join(cell(column[name]) for column in columns) + " |"


def tables() -> dict[str, str]:
    """Heading → its table."""
    specified = {
        f"## {TITLES[operation]}": "\n".join(lines(names, operation)) for operation, names in SPECIFIED.items()
    }
    own = lines({**OWN["chat"], **OWN["text_completion"]}, "chat", "text_completion")
    return specified | {"## What engines have of their own": "\n".join(own)}


def test_the_page_has_a_column_for_each_kind_whose_parameters_are_judged() -> None:
    assert {kind for kind in FOLDERS if not PROFILES[kind].passes_parameters} == set(KINDS)


@pytest.mark.parametrize(("heading", "table"), tables().items(), ids=tables())
def test_each_table_of_the_page_is_the_one_in_the_code(heading: str, table: str) -> None:
    section = PAGE.read_text().partition(f"{heading}\n")[2].partition("\n## ")[0]

    assert "\n".join(line for line in section.splitlines() if line.startswith("|")) == table
