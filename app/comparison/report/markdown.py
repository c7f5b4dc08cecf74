"""The report as Markdown. Models' texts stand in fences that they cannot end, or have their marks escaped. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from app.comparison.report.contents import ComparisonReport, ShownAnswer
from app.comparison.report.figures import move
from app.comparison.report.sentences import measure_name
from app.comparison.report.sound_text import sound
from app.comparison.report.tables import (
    CONTRAST_COLUMNS,
    contrast_cells,
    contrast_name,
    fact_rows,
    judge_cells,
    model_cells,
    noise_cells,
    units,
)
from app.comparison.report.word_diff import DiffPiece, word_diff
from app.comparison.report.words import WORDS, Language

_MOST_SHOWN = 20_000  # characters of one answer
_MARKS = re.compile(r"([\\`*_\[\]!|~#])")
_OPENING = {"del": ("[-", "-]"), "ins": ("{+", "+}")}


def as_markdown(report: ComparisonReport, language: Language = "en") -> str:
    """The whole report as a page."""
    words, findings = WORDS[language], report.findings
    names = [model.model for model in findings.models]
    subject = " · ".join(words["against"].format(model=name, against=names[0]) for name in names[1:])
    unit, several = units(report)[findings.primary], len(names) > 2
    primary = [
        contrast_cells(each, contrast_name(each, language, several=several), unit, language)
        for each in (*findings.overall, *findings.categories)
    ]
    secondary = [
        contrast_cells(
            each,
            measure_name(each.measure, language) + (f" · {each.model}" if several else ""),
            units(report)[each.measure],
            language,
        )
        for each in findings.secondary
    ]
    noise = noise_cells(report, language, primary_only=False)
    noise_columns = ("measure", "model", "count", "difference", "floor", "changed_answers")
    judge_columns = ("judge", "model", "count", "agreement", "first_share", "win_share", "wins", "verdict")
    control_rows = [
        (words.get(f"control_{line.what}", line.what), words[line.state], line.how) for line in report.run.controls
    ]
    lines = [f"# {inline(words['title'])}", "", inline(subject), ""]
    lines += [*(f"- {inline(line)}" for line in report.headline.get(language, ())), ""]
    lines += [f"## {words['noise']}", "", words["noise_text"] if noise else words["noise_none"], ""]
    lines += _table(noise_columns, noise, language)
    lines += [f"## {words['primary']}: {measure_name(findings.primary, language)}", ""]
    lines += [*_table(("category", *CONTRAST_COLUMNS), primary, language), words["p_text"], ""]
    if secondary:
        lines += [f"## {words['hints']}", "", words["hints_text"], ""]
        lines += _table(("measure", *CONTRAST_COLUMNS), secondary, language)
    lines += [f"## {words['models']}", ""]
    lines += _table(("model", "served", "serving", "answered", "errors"), model_cells(report, language), language)
    if findings.judging:
        lines += [f"## {words['judge']}", "", *_table(judge_columns, judge_cells(report, language), language)]
        lines += [words["judge_text"], ""]
    lines += [f"## {words['changes']}", "", *_changes(report, language)]
    lines += [f"## {words['controls']}", "", *_table(("what", "state", "how"), control_rows, language)]
    lines += [*(f"- {inline(note)}" for note in report.run.notes), ""]
    lines += [f"## {words['run']}", "", *(f"- {name}: {inline(value)}" for name, value in fact_rows(report, language))]
    return "\n".join([*lines, ""])


def inline(text: str) -> str:
    """A text in a line or a cell: one line, and nothing in it is a mark of Markdown's or HTML's."""
    plain = " ".join(sound(text).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKS.sub(r"\\\1", plain)


def fenced(text: str) -> list[str]:
    """A text as it is, in a fence that is longer than any within it."""
    text = sound(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", text, fence]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], language: Language) -> list[str]:
    if not rows:
        return []
    heads = [inline(WORDS[language][name]) for name in columns]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(columns)}"]
    return [*lines, *(f"| {' | '.join(map(inline, row))} |" for row in rows), ""]


def _changes(report: ComparisonReport, language: Language) -> list[str]:
    words, unit = WORDS[language], units(report)[report.findings.primary]
    known = {question.id: question for question in report.questions}
    lines: list[str] = []
    for number, change in enumerate(report.findings.changes, 1):
        question = known.get(change.question)
        if question is None:
            continue
        moved = move(change.first_score, change.score, unit, language)
        category = f" · {question.category}" if question.category else ""
        lines += [f"### {number}. {inline(f'{change.question}{category} · {change.model}: {moved}')}", ""]
        lines += [*fenced(_cut(question.prompt, words["cut"])), ""]
        if question.reference is not None:
            lines += [f"{words['reference']}:", "", *fenced(_cut(question.reference, words["cut"])), ""]
        given = {answer.model: answer for answer in question.answers}
        pair = [given[name] for name in (change.against, change.model) if name in given]
        diff = word_diff(*(_cut(answer.text, "") for answer in pair)) if len(pair) == 2 else ([], [])
        for answer, pieces, kind in zip(pair, diff, ("del", "ins"), strict=False):
            lines += [f"{inline(answer.model)}:", "", *_answer(answer, pieces, kind, language), ""]
    return lines or [words["changes_none"], ""]


def _answer(answer: ShownAnswer, pieces: Sequence[DiffPiece], kind: str, language: Language) -> list[str]:
    if answer.error is not None:
        return [inline(f"{WORDS[language]['error']}: {answer.error}")]
    begin, end = _OPENING[kind]
    text = "".join(f"{begin}{piece.text}{end}" if piece.is_own else piece.text for piece in pieces)
    return fenced(text + (WORDS[language]["cut"] if len(answer.text) > _MOST_SHOWN else ""))


def _cut(text: str, end: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}{end}"
