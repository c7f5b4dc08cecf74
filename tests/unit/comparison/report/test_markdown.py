"""The Markdown report: whole in both languages, and models' texts stay in their fences."""

from __future__ import annotations

import re

import pytest

from app.comparison.report.markdown import as_markdown, fenced, inline
from app.comparison.report.words import WORDS, Language
from tests.unit.comparison.report.attempts import ATTEMPTS
from tests.unit.comparison.report.samples import report
from tests.unit.comparison.report.test_page import everything


def outside_fences(text: str) -> str:
    """The lines that are Markdown; fails where a fence is not closed."""
    kept, fence = [], ""
    for line in text.split("\n"):
        mark = re.match(r"`{3,}", line)
        if not fence and mark:
            fence = mark[0]
        elif fence and line == fence:
            fence = ""
        elif not fence:
            kept.append(line)
    assert fence == ""
    return "\n".join(kept)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_attempt_is_text_in_a_fence_or_escaped(attempt: str) -> None:
    said = outside_fences(as_markdown(everything(attempt)))

    assert "<" not in said
    assert not re.search(r"(?<!\\)!\[|(?<!\\)\]\(", said)
    assert said.count("\n#") == outside_fences(as_markdown(everything("x"))).count("\n#")


@pytest.mark.parametrize(("language", "difference"), [("en", "+20.0 points"), ("zh", "+20.0 个百分点")])
def test_a_report_says_what_was_found(language: Language, difference: str) -> None:
    said = as_markdown(report(), language)

    assert f"\n## {WORDS[language]['noise']}\n" in said
    assert f"| 50.0 → 70.0 % | {difference} \\[+8.0 … +32.0\\] | 4.0 | 0.006 | 16.0 | 11 / 38 / 1 |" in said
    assert "\n```text\nWhat is the capital of Ostravia?\n```\n" in said


def test_words_that_only_one_answer_has_are_marked() -> None:
    said = as_markdown(report(answer="It is Pellingford.", other="It is Paris."))

    assert "It is [-Paris-]." in said
    assert "It is {+Pellingford+}." in said


def test_a_fence_is_longer_than_any_in_its_text() -> None:
    assert fenced("a ```` b")[0] == "`````text"
    assert fenced("a")[0] == "```text"


def test_a_cell_is_one_line_without_marks() -> None:
    assert inline("a | b\n*c* <d> [e](f)") == r"a \| b \*c\* &lt;d&gt; \[e\](f)"
