"""The words of the house: one name for one thing, and each of them in the glossary leads to what it names."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tests.rigs.pages import page
from tests.unit.house.test_architecture import FILES, name_of

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


def locals_of(path: Path) -> Iterator[tuple[str, int]]:
    """The local variables and parameters of a file, each with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


@pytest.mark.parametrize("path", [*FILES, *BENCH], ids=name_of)
def test_what_is_found_is_called_what_it_is(path: Path) -> None:
    """`found` says how a value came, not what it is."""
    assert [line for name, line in locals_of(path) if name == "found"] == []


def test_each_word_of_the_glossary_leads_to_a_class_or_a_place() -> None:
    named = {name for path in FILES for name in classes(path)}
    places = [place for _, _, where in glossary() for place in re.findall(r"`([^`]+)`", where)]

    assert len(places) >= len(glossary()) >= 40
    assert [place for place in places if place not in named and not (ROOT / place).exists()] == []


def test_the_glossary_has_each_word_once_and_in_order() -> None:
    words = [word for word, _, _ in glossary()]

    assert words == sorted(set(words))


@pytest.mark.parametrize("path", [*FILES, *BENCH], ids=name_of)
def test_a_docstring_says_more_than_a_word(path: Path) -> None:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documented = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    texts = [text for node in documented if (text := ast.get_docstring(node)) is not None]

    assert [text for text in texts if len(text.split()) < 2] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_message_says_that_something_is_none(path: Path) -> None:
    """What is wrong with a value is said as it is said everywhere: it "is not a valid …"."""
    tree = ast.parse(path.read_text())
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings]

    assert [
        text for text in texts if isinstance(text, str) and re.search(r"\b(that|which) (is|are) none\b", text)
    ] == []
