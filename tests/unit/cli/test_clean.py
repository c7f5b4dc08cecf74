"""`modelport clean`: what it removes, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rigs.cli import run


def environment(tools: Path) -> Path:
    made = tools / f"report-{'a' * 12}"
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "python").write_bytes(bytes(3_000_000))
    return made


def test_tool_environments_are_removed_and_it_says_how_much_was_freed(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    made = environment(tools)

    dry = run(tmp_path, "clean", "--dry-run", MODELPORT_TOOLS=str(tools))
    was_kept = made.exists()
    done = run(tmp_path, "clean", MODELPORT_TOOLS=str(tools))

    assert (dry.code, was_kept, done.code) == (0, True, 0)
    assert dry.out == f"{made.name}\n3 MB would be freed in {tools}.\n"
    assert done.out == f"{made.name}\n3 MB freed in {tools}.\n"
    assert not made.exists()


@pytest.mark.parametrize("variable", ["MODELPORT_TOOLS", "OTHER"])
def test_where_there_is_nothing_it_says_so(tmp_path: Path, variable: str) -> None:
    done = run(tmp_path, "clean", "--state", str(tmp_path / "s"), **{variable: str(tmp_path / "none")})

    place = tmp_path / "none" if variable == "MODELPORT_TOOLS" else tmp_path / "s" / "tools"
    assert (done.code, done.out) == (0, f"Nothing to remove in {place}.\n")
    assert not (tmp_path / "s").exists()
