"""The words of the house: one name for one thing, and each of them in the glossary leads to what it names."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests import ROOT
from tests.rigs.pages import page
from tests.unit.house.test_architecture import FILES

BENCH = sorted((ROOT / "bench").rglob("*.py"))


def classes(path: Path) -> Iterator[str]:
    """The public classes of a file, those inside others too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def glossary() -> list[list[str]]:
    """The rows of the glossary: word, meaning, and where it lives."""
    rows = [line.strip("| ").split(" | ") for line in page("docs/architecture.md").sections["Words"].splitlines()]
    return [row for row in rows if len(row) == 3][1:]


def test_each_public_class_has_a_name_of_its_own() -> None:
    named = Counter(name for path in (*FILES, *BENCH) for name in classes(path))

    assert len(named) > 300
    assert {name: count for name, count in named.items() if count > 1} == {}


def test_each_word_of_the_glossary_leads_to_a_class_or_a_place() -> None:
    named = {name for path in FILES for name in classes(path)}
    places = [place for _, _, where in glossary() for place in re.findall(r"`([^`]+)`", where)]

    assert len(places) >= len(glossary()) >= 40
    assert [place for place in places if place not in named and not (ROOT / place).exists()] == []


def test_the_glossary_has_each_word_once_and_in_order() -> None:
    words = [word for word, _, _ in glossary()]

    assert words == sorted(set(words))
