"""The parts of the HTML report; None for a part that has nothing to show. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.comparison.analysis.findings import AnswerChange, Contrast
from app.comparison.report.contents import ComparisonReport, ShownAnswer, ShownQuestion
from app.comparison.report.figures import bare_step, move, size, span, step
from app.comparison.report.html.charts import Scale, axis, interval_plot, shares_bar
from app.comparison.report.html.markup import Markup, join, tag
from app.comparison.report.sentences import measure_name
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

MOST_SHOWN = 20_000  # characters of one answer
_COLUMNS = CONTRAST_COLUMNS[:-1]  # wins have a chart of their own
_NUMBERS = frozenset({"count", "models_mean", "difference", "floor", "p", "detectable", "wins", "changed_answers"})


def noise(report: ComparisonReport, language: Language) -> Markup:
    """Each model against itself, in the primary measure."""
    words = WORDS[language]
    rows = noise_cells(report, language, primary_only=True)
    if not rows:
        return _section(words["noise"], tag("p", words["noise_none"]))
    columns = ("model", "count", "difference", "floor", "changed_answers")
    return _section(words["noise"], tag("p", words["noise_text"], class_="soft"), _table(columns, rows, language))


def differences(report: ComparisonReport, language: Language) -> Markup | None:
    """The primary measure's differences as a chart."""
    words, findings = WORDS[language], report.findings
    shown = [each for each in (*findings.overall, *findings.categories) if each.difference is not None]
    if not shown:
        return None
    unit, scale = units(report)[findings.primary], Scale(shown)
    several = len(findings.models) > 2
    rows = [_plot_row(each, scale, contrast_name(each, language, several=several), unit, language) for each in shown]
    labels = [bare_step(value, unit) for value in scale.ticks()]
    scale_row = tag(
        "div",
        tag("span", "", class_="label"),
        axis(scale, labels),
        tag("span", step(0.0, unit, language).partition(" ")[2], class_="value"),
        class_="row scale",
    )
    title = f"{words['differences']}{words['colon']}{measure_name(findings.primary, language)}"
    text = tag("p", words["differences_text"], class_="soft")
    return _section(title, text, tag("div", *rows, scale_row, class_="chart"))


def categories(report: ComparisonReport, language: Language) -> Markup:
    """The primary measure over all questions and by category."""
    words, findings = WORDS[language], report.findings
    several = len(findings.models) > 2
    unit = units(report)[findings.primary]
    rows = [
        contrast_cells(each, contrast_name(each, language, several=several), unit, language)[:-1]
        for each in (*findings.overall, *findings.categories)
    ]
    outcomes = [each.outcome for each in (*findings.overall, *findings.categories)]
    return _section(
        f"{words['primary']}{words['colon']}{measure_name(findings.primary, language)}",
        _table(("category", *_COLUMNS), rows, language, outcomes),
        tag("p", words["p_text"], class_="soft"),
    )


def wins(report: ComparisonReport, language: Language) -> Markup | None:
    """Wins, ties and losses as bars."""
    words, findings = WORDS[language], report.findings
    shown = [each for each in (*findings.overall, *findings.categories) if each.questions]
    if not shown:
        return None
    several = len(findings.models) > 2
    rows = []
    for each in shown:
        name = contrast_name(each, language, several=several)
        counts = f"{each.wins} / {each.ties} / {each.losses}"
        bar = shares_bar(each.wins, each.ties, each.losses, f"{name}: {words['wins']} {counts}")
        rows.append(
            tag("div", tag("bdi", name, class_="label"), bar, tag("span", counts, class_="value"), class_="row")
        )
    return _section(words["wins_title"], tag("div", *rows, class_="chart"))


def hints(report: ComparisonReport, language: Language) -> Markup | None:
    """The measures that were not declared beforehand."""
    words, findings = WORDS[language], report.findings
    if not findings.secondary:
        return None
    several = len(findings.models) > 2
    known = units(report)
    texts = {each.name: each.chinese if language == "zh" and each.chinese else each.text for each in report.measures}
    rows: list[Sequence[str | Markup]] = []
    for each in findings.secondary:
        name = measure_name(each.measure, language) + (f" · {each.model}" if several else "")
        first = join(name, tag("small", texts.get(each.measure, "")))
        rows.append([first, *contrast_cells(each, name, known[each.measure], language)[1:-1]])
    outcomes = [each.outcome for each in findings.secondary]
    text = tag("p", words["hints_text"], class_="soft")
    return _section(words["hints"], text, _table(("measure", *_COLUMNS), rows, language, outcomes))


def models(report: ComparisonReport, language: Language) -> Markup:
    """The models: how they ran, and how many answers were errors."""
    words = WORDS[language]
    columns = ("model", "served", "serving", "answered", "errors")
    parts = [_table(columns, model_cells(report, language), language)]
    if any(each.errors for each in report.findings.models):
        parts.append(tag("p", words["errors_text"], class_="soft"))
    return _section(words["models"], *parts)


def judging(report: ComparisonReport, language: Language) -> Markup | None:
    """What a judge said, or that it is of no use."""
    words = WORDS[language]
    if not report.findings.judging:
        return None
    columns = ("judge", "model", "count", "agreement", "first_share", "win_share", "wins", "verdict")
    outcomes = [each.outcome if each.is_useful else "too_few" for each in report.findings.judging]
    table = _table(columns, judge_cells(report, language), language, outcomes)
    return _section(words["judge"], table, tag("p", words["judge_text"], class_="soft"))


def changes(report: ComparisonReport, language: Language) -> Markup:
    """The questions with the largest changes, both texts, the words marked that the other does not have."""
    words = WORDS[language]
    known = {question.id: question for question in report.questions}
    unit = units(report)[report.findings.primary]
    shown = [
        _change(known[change.question], change, unit, language)
        for change in report.findings.changes
        if change.question in known
    ]
    if not shown:
        return _section(words["changes"], tag("p", words["changes_none"]))
    return _section(words["changes"], tag("p", words["marked"], class_="soft"), *shown)


def controls(report: ComparisonReport, language: Language) -> Markup | None:
    """What else than the weights could make the models unlike."""
    words, run = WORDS[language], report.run
    parts: list[Markup] = []
    if run.controls:
        rows = [(words.get(f"control_{line.what}", line.what), words[line.state], line.how) for line in run.controls]
        parts.append(_table(("what", "state", "how"), rows, language))
    if run.notes:
        parts += [tag("h3", words["notes"]), tag("ul", *(tag("li", note) for note in run.notes))]
    return _section(words["controls"], *parts) if parts else None


def run_facts(report: ComparisonReport, language: Language) -> Markup:
    """How the comparison was run."""
    rows = [
        (tag("th", name, scope="row"), tag("td", value, class_="name")) for name, value in fact_rows(report, language)
    ]
    table = tag(
        "div", tag("table", tag("tbody", *(tag("tr", *cells) for cells in rows)), class_="facts"), class_="wide"
    )
    return _section(WORDS[language]["run"], table)


def _section(title: str, *parts: Markup) -> Markup:
    return tag("section", tag("h2", title), *parts)


def _table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | Markup]],
    language: Language,
    outcomes: Sequence[str] = (),
) -> Markup:
    """A table; `outcomes` colour the cells of the column `verdict`."""
    words = WORDS[language]
    heads = [tag("th", words[name], scope="col", class_="number" if name in _NUMBERS else "") for name in columns]
    body = []
    for index, row in enumerate(rows):
        cells: list[Markup] = []
        for name, cell in zip(columns, row, strict=True):
            kind = "number" if name in _NUMBERS else "name" if cells else "first"
            if name == "verdict" and outcomes:
                kind = f"verdict {outcomes[index]}"
                cell = _verdict(cell)
            cells.append(tag("td", cell, class_=kind))
        body.append(tag("tr", *cells))
    return tag("div", tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *body)), class_="wide")


def _verdict(cell: str | Markup) -> str | Markup:
    """What stands against it in small letters."""
    if isinstance(cell, Markup):
        return cell
    said, _, why = cell.replace("：", ": ").partition(": ")
    return join(said, tag("small", why)) if why else said


def _plot_row(each: Contrast, scale: Scale, name: str, unit: str, language: Language) -> Markup:
    interval = span(each.low, each.high, unit)
    said = (
        f"{step(each.difference, unit, language)} [{interval}]" if interval else step(each.difference, unit, language)
    )
    floor = f", {WORDS[language]['floor']} {size(each.noise_floor, unit, language)}" if each.noise_floor else ""
    return tag(
        "div",
        tag("bdi", name, class_="label"),
        interval_plot(each, scale, f"{name}: {said}{floor}"),
        tag("span", said, class_="value"),
        class_="row",
    )


def _change(question: ShownQuestion, change: AnswerChange, unit: str, language: Language) -> Markup:
    words = WORDS[language]
    moved = move(change.first_score, change.score, unit, language)
    first_line = question.prompt.strip().partition("\n")[0]
    title = first_line if len(first_line) <= 100 else f"{first_line[:99]}…"
    given = {answer.model: answer for answer in question.answers}
    pair = [given[name] for name in (change.against, change.model) if name in given]
    diff = word_diff(*(_cut(answer.text, "") for answer in pair)) if len(pair) == 2 else ([], [])
    sides = [
        _side(answer, pieces, kind, language) for answer, pieces, kind in zip(pair, diff, ("del", "ins"), strict=False)
    ]
    about = [tag("h3", words["question"]), tag("pre", _cut(question.prompt, words["cut"]), dir="auto")]
    if question.reference is not None:
        about += [tag("h3", words["reference"]), tag("pre", _cut(question.reference, words["cut"]), dir="auto")]
    category = f" · {question.category}" if question.category else ""
    summary = tag("summary", tag("bdi", title), tag("small", f" {change.model}: {moved}{category}"))
    return tag("details", summary, *about, tag("div", *sides, class_="sides"))


def _side(answer: ShownAnswer, pieces: Sequence[DiffPiece], kind: str, language: Language) -> Markup:
    words = WORDS[language]
    parts = [tag("h3", tag("bdi", answer.model))]
    if answer.reasoning:
        thinking = tag("pre", _cut(answer.reasoning, words["cut"]), dir="auto")
        parts.append(tag("details", tag("summary", words["thinking"]), thinking))
    if answer.error is not None:
        parts.append(tag("p", f"{words['error']}: {answer.error}"))
    else:
        marked = [tag(kind, piece.text) if piece.is_own else piece.text for piece in pieces]
        cut = words["cut"] if len(answer.text) > MOST_SHOWN else ""
        parts.append(tag("pre", *marked, cut, dir="auto"))
    facts = [
        f"{answer.completion_tokens} tokens" if answer.completion_tokens is not None and language == "en" else "",
        f"{answer.completion_tokens} 词元" if answer.completion_tokens is not None and language == "zh" else "",
        f"{answer.seconds:.2f} {words['seconds']}" if answer.seconds is not None else "",
        answer.finish_reason or "",
    ]
    parts.append(tag("small", " · ".join(fact for fact in facts if fact)))
    return tag("div", *parts, class_="side")


def _cut(text: str, end: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}{end}"
