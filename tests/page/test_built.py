"""What is committed is what the sources say."""

from __future__ import annotations

from pathlib import Path

from tests.page.building import BUILT, build, check_types


def test_the_built_page_is_the_one_that_the_sources_make(tmp_path: Path) -> None:
    build(tmp_path)

    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_bytes() for path in BUILT.iterdir()}
    assert made.keys() == committed.keys()
    assert [name for name in made if made[name] != committed[name]] == []


def test_the_sources_types_are_right() -> None:
    check_types()
