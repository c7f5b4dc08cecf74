"""The report as one HTML file: no script, no request, every text escaped, light and dark, for a phone, too. Pure."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Final

from app.comparison.report.contents import ComparisonReport
from app.comparison.report.html.markup import Markup, join, style, tag
from app.comparison.report.html.sections import (
    categories,
    changes,
    controls,
    differences,
    hints,
    judging,
    models,
    noise,
    run_facts,
    wins,
)
from app.comparison.report.words import WORDS, Language

_STYLE: Final = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY: Final = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'"


def as_html(report: ComparisonReport, language: Language = "en") -> str:
    """The whole report as a page. Nothing in it is fetched, and nothing in it runs: POLICY stands in its head."""
    words, run = WORDS[language], report.run
    names = [model.model for model in report.findings.models]
    subject = " · ".join(words["against"].format(model=name, against=names[0]) for name in names[1:])
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="referrer", content="no-referrer"),
        tag("title", f"{subject}: {words['title']}"),
        style(_STYLE),
    )
    header = tag(
        "header",
        tag("h1", words["title"]),
        tag("p", subject, tag("bdi", f" · {run.pair}") if run.pair else "", class_="soft"),
    )
    sections = [
        _headline(report, language),
        noise(report, language),
        differences(report, language),
        categories(report, language),
        wins(report, language),
        hints(report, language),
        models(report, language),
        judging(report, language),
        changes(report, language),
        controls(report, language),
        run_facts(report, language),
    ]
    body = tag("body", tag("main", header, *(section for section in sections if section is not None)))
    page = tag("html", head, body, lang="zh-CN" if language == "zh" else "en")
    return f"<!doctype html>\n{page.source}\n"


def _headline(report: ComparisonReport, language: Language) -> Markup:
    outcomes = {each.outcome for each in report.findings.overall}
    kind = outcomes.pop() if len(outcomes) == 1 else "mixed"
    lines = [tag("p", line) for line in report.headline.get(language, ())]
    return tag("div", join(*lines), class_=f"headline {kind}")
