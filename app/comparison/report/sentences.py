"""The outcome in sentences, English and Chinese. Pure: findings in, sentences out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.comparison.analysis.findings import Contrast, Findings, Judging
from app.comparison.report.contents import RunFacts
from app.comparison.report.figures import figure, probability, size, span, step
from app.comparison.report.words import LANGUAGES, WORDS, Language


def headline(run: RunFacts, findings: Findings, units: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """What the report says first, in each language: the outcome of the primary measure for each further model, the
    categories, and whatever the reader must know to trust it. `units`: of the measures.
    """
    return {language: tuple(_sentences(run, findings, units, language)) for language in LANGUAGES}


def outcome(contrast: Contrast, unit: str, language: Language) -> str:
    """One contrast in a sentence."""
    return (_english if language == "en" else _chinese)(contrast, unit)


def measure_name(name: str, language: Language) -> str:
    """What a measure is called."""
    return WORDS[language].get(f"measure_{name}", name)


def _sentences(run: RunFacts, findings: Findings, units: Mapping[str, str], language: Language) -> list[str]:
    unit = units.get(findings.primary, "")
    lines = [outcome(each, unit, language) for each in findings.overall]
    lines += _categories(findings.categories, unit, language)
    lines += [_judge(each, language) for each in findings.judging]
    english = language == "en"
    lines += [
        f"{each.model}: {each.errors} of {each.asked} answers "
        + ("is an error; its question is" if each.errors == 1 else "are errors; their questions are")
        + " not counted for it."
        if english
        else f"{each.model}：{each.asked} 个回答中有 {each.errors} 个错误，这些题目不计入它的对比。"
        for each in findings.models
        if each.errors
    ]
    if not any(floor.measure == findings.primary for floor in findings.noise):
        lines.append(WORDS[language]["noise_none"])
    if not run.is_whole:
        lines.append(
            "The run has not ended: these are the answers so far." if english else "运行尚未完成：以下仅为目前的回答。"
        )
    return lines


def _english(each: Contrast, unit: str) -> str:
    who, measure = f"{each.model} against {each.against}", measure_name(each.measure, "en")
    if each.outcome == "too_few" or each.difference is None:
        return f"{who}: too few questions to say. {each.questions} have a score of both; 6 are needed."
    figures = (
        f"{measure} {figure(each.mean, unit, 'en')} against {figure(each.first_mean, unit, 'en')}, a difference of "
        f"{step(each.difference, unit, 'en')} (95 % interval {span(each.low, each.high, unit)}) over {each.questions} "
        "questions."
    )
    if each.outcome == "no_difference":
        why = {
            "interval": "",
            "p_value": f" The interval excludes 0, but the test does not exclude chance (p {_is(each.p_adjusted)}).",
            "noise": f" That is inside the noise floor of {size(each.noise_floor, unit, 'en')}.",
        }.get(each.ground, "")
        shown = size(each.detectable, unit, "en")
        least = f" So many questions could have shown {shown} or more." if shown else ""
        return f"No difference seen, {who}: {figures}{why}{least}"
    verb = "differs from" if each.outcome == "changed" else f"is {each.outcome} than"
    return f"{each.model} {verb} {each.against}: {figures}"


def _chinese(each: Contrast, unit: str) -> str:
    who, measure = f"{each.model} 对比 {each.against}", measure_name(each.measure, "zh")
    if each.outcome == "too_few" or each.difference is None:
        return f"{who}：题目太少，无法判断。两个模型都有分数的题目有 {each.questions} 道，至少需要 6 道。"
    figures = (
        f"{measure} {figure(each.mean, unit, 'zh')} 对 {figure(each.first_mean, unit, 'zh')}，差异 "
        f"{step(each.difference, unit, 'zh')}（95% 区间 {span(each.low, each.high, unit)}），共 {each.questions} 题。"
    )
    if each.outcome == "no_difference":
        why = {
            "interval": "",
            "p_value": f"区间不含 0，但检验不能排除偶然（p {_is(each.p_adjusted)}）。",
            "noise": f"差异在噪声基线 {size(each.noise_floor, unit, 'zh')}之内。",
        }.get(each.ground, "")
        shown = size(each.detectable, unit, "zh")
        least = f"这么多题目能检出不小于 {shown}的差异。" if shown else ""
        return f"未见差异，{who}：{figures}{why}{least}"
    verb = {"better": "优于", "worse": "劣于", "changed": "不同于"}[each.outcome]
    return f"{each.model} {verb} {each.against}：{figures}"


def _categories(contrasts: Sequence[Contrast], unit: str, language: Language) -> list[str]:
    """For each further model, which categories came out how."""
    words = WORDS[language]
    colon, comma, stop = (": ", ", ", ".") if language == "en" else ("：", "、", "。")
    between = "; " if language == "en" else "；"
    lines = []
    for model in dict.fromkeys(each.model for each in contrasts):
        sorts: dict[str, list[str]] = {}
        for each in contrasts:
            if each.model == model:
                name = each.category or words["no_category"]
                if each.outcome in ("better", "worse", "changed") and each.difference is not None:
                    name = f"{name} ({step(each.difference, unit, language)})"
                sorts.setdefault(each.outcome, []).append(name)
        order = [sort for sort in ("better", "worse", "changed", "no_difference", "too_few") if sort in sorts]
        said = between.join(f"{words[sort]}{colon}{comma.join(sorts[sort])}" for sort in order)
        by = f"{model} by category" if language == "en" else f"{model} 按类别"
        lines.append(f"{by}{colon}{said}{stop}")
    return lines


def _judge(each: Judging, language: Language) -> str:
    share, low, high = (f"{value * 100:.0f} %" for value in (each.win_share, each.low, each.high))
    agreement = f"{each.agreement * 100:.0f} %"
    if not each.pairs:
        if language == "zh":
            return f"评判模型 {each.judge} 没有给出任何可读的成对判断，因此没有结果。"
        return f"The judge {each.judge} has given no result: of no pair could its judgement be read in both orders."
    if language == "zh":
        if not each.is_useful:
            return (
                f"评判模型 {each.judge} 无效：{each.pairs} 对回答交换顺序后只有 {agreement} 判断一致，"
                "其判断不能作为结果。"
            )
        return (
            f"评判模型 {each.judge}：{each.model} 对 {each.against} 的胜率 {share}（95% 区间 {low} … {high}），"
            f"{each.pairs} 对，自身一致率 {agreement}。"
        )
    if not each.is_useful:
        return (
            f"The judge {each.judge} is useless here: with the two answers in the other order it says the same of only "
            f"{agreement} of {each.pairs} pairs. Its judgements are no result."
        )
    return (
        f"The judge {each.judge}: {each.model} wins {share} against {each.against} (95 % interval {low} … {high}) of "
        f"{each.pairs} pairs; it agrees with itself on {agreement}."
    )


def _is(p: float | None) -> str:
    text = probability(p)
    return text if text.startswith("<") else f"= {text}"
