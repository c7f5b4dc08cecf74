"""The report's tables as cells of text, for HTML and Markdown alike. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from app.comparison.analysis.findings import Contrast
from app.comparison.report.contents import ComparisonReport
from app.comparison.report.figures import bare_size, bare_step, move, probability, size, span, step
from app.comparison.report.sentences import measure_name
from app.comparison.report.words import WORDS, Language

CONTRAST_COLUMNS = ("verdict", "count", "models_mean", "difference", "floor", "p", "detectable", "wins")


def units(report: ComparisonReport) -> Mapping[str, str]:
    """The unit of each measure."""
    return {measure.name: measure.unit for measure in report.measures}


def contrast_name(contrast: Contrast, language: Language, *, several: bool) -> str:
    """What a contrast's row is called: its category, and the model where there are several."""
    words = WORDS[language]
    name = words["all"] if contrast.category is None else contrast.category or words["no_category"]
    return f"{name} · {contrast.model}" if several else name


def contrast_cells(contrast: Contrast, name: str, unit: str, language: Language) -> list[str]:
    """A name, then the cells under CONTRAST_COLUMNS."""
    interval = span(contrast.low, contrast.high, unit)
    difference = step(contrast.difference, unit, language) if not unit else bare_step(contrast.difference, unit)
    return [
        name,
        verdict(contrast, language),
        str(contrast.questions),
        move(contrast.first_mean, contrast.mean, unit, language),
        difference + (f" [{interval}]" if interval else ""),
        bare_size(contrast.noise_floor, unit),
        probability(contrast.p_adjusted),
        bare_size(contrast.detectable, unit),
        f"{contrast.wins} / {contrast.ties} / {contrast.losses}",
    ]


def verdict(contrast: Contrast, language: Language) -> str:
    """The verdict, or why there is none."""
    words = WORDS[language]
    ground = words.get(f"ground_{contrast.ground}")
    if ground is None:
        return words[contrast.outcome]
    return f"{words[contrast.outcome]}: {ground}" if language == "en" else f"{words[contrast.outcome]}：{ground}"


def noise_cells(report: ComparisonReport, language: Language, *, primary_only: bool) -> list[list[str]]:
    """Model, questions, difference, floor, changed answers; of all measures with the measure before."""
    known = units(report)
    rows = []
    for each in report.findings.noise:
        if primary_only and each.measure != report.findings.primary:
            continue
        unit = known[each.measure]
        rows.append(
            [
                *([] if primary_only else [measure_name(each.measure, language)]),
                each.model,
                str(each.questions),
                f"{step(each.difference, unit, language)} [{span(each.low, each.high, unit)}]",
                size(each.floor, unit, language),
                str(each.changed),
            ]
        )
    return rows


def model_cells(report: ComparisonReport, language: Language) -> list[list[str]]:
    """Model, engine, serving, answers, errors with the most frequent reasons."""
    served = {model.name: model for model in report.run.models}
    rows = []
    for each in report.findings.models:
        model = served.get(each.model)
        engine = " · ".join(part for part in (model.engine, model.quantization) if part) if model else ""
        reasons = "; ".join(f"{count} × {text}" for text, count in each.error_texts)
        rows.append(
            [
                each.model,
                engine,
                (model.serving or "") if model else "",
                str(each.asked),
                f"{each.errors}: {reasons}" if reasons else str(each.errors),
            ]
        )
    return rows


def judge_cells(report: ComparisonReport, language: Language) -> list[list[str]]:
    """Judge, model, pairs, agreement, how often the first shown wins, win share, wins, verdict."""
    words = WORDS[language]
    rows = []
    for each in report.findings.judging:
        low, high = f"{each.agreement_low * 100:.0f}", f"{each.agreement_high * 100:.0f}"
        share = f"{each.win_share * 100:.1f} % [{each.low * 100:.0f} … {each.high * 100:.0f}]"
        rows.append(
            [
                each.judge,
                each.model,
                str(each.pairs),
                f"{each.agreement * 100:.1f} % [{low} … {high}]",
                "" if each.first_share is None else f"{each.first_share * 100:.1f} %",
                share if each.is_useful else "",
                f"{each.wins} / {each.ties} / {each.losses}" if each.is_useful else "",
                words[each.outcome] if each.is_useful else words["useless"],
            ]
        )
    return rows


def fact_rows(report: ComparisonReport, language: Language) -> list[tuple[str, str]]:
    """How the comparison was run: a name and a value in each row."""
    words, run = WORDS[language], report.run
    colon = ": " if language == "en" else "："
    sampling = ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in run.sampling.items()
    )
    primary = measure_name(report.findings.primary, language)
    texts = {each.name: each.chinese if language == "zh" and each.chinese else each.text for each in report.measures}
    return [
        (words["run"], run.id),
        (words["date"], run.date),
        (
            words["questions"],
            words["file"].format(file=run.questions_file, format=run.questions_format, count=run.questions),
        ),
        (words["primary"], words["declared"].format(measure=primary) + colon + texts.get(report.findings.primary, "")),
        (words["sampling"], sampling),
        (words["seed"], str(run.seed)),
        (words["repeats"], words["times"].format(count=run.repeats)),
    ]
