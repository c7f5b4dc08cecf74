"""What others have written is shown on a terminal, and steers none."""

from __future__ import annotations

import pytest

from app.cli.compare_progress import ShownRun
from app.cli.tables import show
from app.cli.terminal_text import terminal_line, terminal_text


@pytest.mark.parametrize(
    "steering", ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\x08", "\r", "\x00", "\u202e", "\ud800"]
)
def test_nothing_that_a_terminal_obeys_is_left(steering: str) -> None:
    shown = terminal_text(f"a{steering}b")

    assert shown.startswith("a\ufffd")
    assert steering[0] not in shown


def test_lines_tabs_and_every_script_stay() -> None:
    text = "two\tlines\nand 中文, עברית, 😀, é"

    assert terminal_text(text.replace("\n", "\r\n")) == text
    assert terminal_line("two\nlines") == "two lines"


def test_a_cell_of_a_table_is_one_line_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    show(("name", "is"), [("a\nb\x1b[31m", "c")])

    assert capsys.readouterr().out == "name      is\na b\ufffd[31m  c\n"


def test_why_nothing_comes_is_said_once_until_the_next_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with ShownRun() as progress:
        for why in ("full", "full", "down\x1b[2J"):
            progress.waiting(why)
        progress.count(1, 100, 0)
        progress.waiting("down\x1b[2J")

    told = capsys.readouterr().err.splitlines()
    assert told == ["  waiting: full", "  waiting: down\ufffd[2J", "  waiting: down\ufffd[2J"]
