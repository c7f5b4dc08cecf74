"""What a unit of the fleet consists of, and that each part of it is written in one file only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

APP = sorted((ROOT / "app").rglob("*.py"))
UNIT = ROOT / "app/supervisor/fleet/unit.py"
MAX_ATTRIBUTES = 20
# Attributes of a unit that are objects of their own, with the one file that writes their fields.
PARTS = {
    "occupancy": "app/supervisor/capacity/scheduler.py",
    "change": "app/supervisor/replicas/pending_change.py",
    "record": "app/supervisor/fleet/past_lives.py",
    "runner": "app/supervisor/fleet/runner.py",
    "adapters": "app/supervisor/replicas/adapters.py",
}


def annotated(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(name, annotation) of each parameter and each annotated name."""
    for child in ast.walk(node):
        if isinstance(child, ast.arg) and child.annotation is not None:
            yield child.arg, ast.unparse(child.annotation).strip("'\"")
        if isinstance(child, ast.AnnAssign):
            yield ast.unparse(child.target), ast.unparse(child.annotation).strip("'\"")


def writes(node: ast.AST) -> Iterator[ast.Attribute]:
    """Every attribute that is assigned, in whatever way."""
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store | ast.Del):
            yield child


def attributes(path: Path, name: str) -> set[str]:
    classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    (own,) = [node for node in classes if node.name == name]
    return {write.attr for write in writes(own) if ast.unparse(write.value) == "self"}


def names_of_units(tree: ast.AST) -> set[str]:
    """What a unit is called in a file: names that are said to be one, and those that units go by everywhere."""
    return {"unit", "replacement", "other", "first", "one", "each"} | {
        name for name, annotation in annotated(tree) if annotation in ("Unit", "Unit | None")
    }


def aliases(tree: ast.AST, part: str) -> set[str]:
    """Local names for this part of a unit."""
    return {
        ast.unparse(target)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.value).endswith(f".{part}")
        for target in node.targets
    }


def test_a_unit_has_few_attributes() -> None:
    assert len(attributes(UNIT, "Unit")) <= MAX_ATTRIBUTES


def test_no_other_file_writes_an_attribute_of_a_unit() -> None:
    own = attributes(UNIT, "Unit")
    elsewhere = []
    for path in APP:
        tree = ast.parse(path.read_text())
        names = {*names_of_units(tree), "self._unit", "self.unit"}
        elsewhere += [
            f"{path.relative_to(ROOT)}:{write.lineno} {ast.unparse(write)}"
            for write in writes(tree)
            if write.attr in own and ast.unparse(write.value) in names and path != UNIT
        ]

    assert elsewhere == []


@pytest.mark.parametrize(("part", "owner"), PARTS.items())
def test_each_part_of_a_unit_is_written_in_one_file(part: str, owner: str) -> None:
    assert part in attributes(UNIT, "Unit")
    elsewhere = []
    for path in APP:
        tree = ast.parse(path.read_text())
        names = {part, *aliases(tree, part)}
        elsewhere += [
            f"{path.relative_to(ROOT)}:{write.lineno} {ast.unparse(write)}"
            for write in writes(tree)
            if ast.unparse(write.value).split(".")[-1] in names and path != ROOT / owner
        ]

    assert elsewhere == []
