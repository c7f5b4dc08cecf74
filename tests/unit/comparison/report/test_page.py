"""The HTML report: whole in both languages, and nothing in it acts, whatever models said."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from app.comparison.analysis.analyse import analyse
from app.comparison.report.build import build
from app.comparison.report.contents import ComparisonReport
from app.comparison.report.html.page import POLICY, as_html
from app.comparison.report.words import WORDS, Language
from tests.unit.comparison.analysis.made import answers, questions
from tests.unit.comparison.report.attempts import ATTEMPTS
from tests.unit.comparison.report.samples import OVERALL, report
from tests.unit.comparison.report.test_sentences import JUDGING

ACTIVE = {"script", "img", "iframe", "object", "embed", "a", "link", "base", "form", "input", "video", "audio", "use"}


class Seen(HTMLParser):
    """What a page is made of: elements, attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def everything(attempt: str) -> ComparisonReport:
    """A report in which every text that comes from outside is the attempt."""
    made = report(answer=attempt, other=f"{attempt} and more")
    findings = replace(
        made.findings,
        categories=(replace(OVERALL, category=attempt), replace(OVERALL, category="")),
        models=tuple(
            replace(model, errors=1, error_texts=((attempt, 1),), model=attempt) for model in made.findings.models
        ),
        judging=(replace(JUDGING, judge=attempt, model=attempt),),
    )
    question = made.questions[0]
    given = tuple(replace(answer, reasoning=attempt, finish_reason=attempt) for answer in question.answers)
    return replace(
        made,
        findings=findings,
        questions=(replace(question, prompt=attempt, reference=attempt, category=attempt, answers=given),),
        run=replace(
            made.run,
            id=attempt,
            pair=attempt,
            questions_file=attempt,
            notes=(attempt,),
            sampling={attempt: attempt},
            controls=(replace(made.run.controls[0], what=attempt, how=attempt),),
        ),
        headline={"en": (attempt,), "zh": (attempt,)},
    )


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_no_attempt_becomes_an_element(attempt: str, language: Language) -> None:
    plain, tried = Seen(as_html(everything("x"), language)), Seen(as_html(everything(attempt), language))

    assert tried.tags == plain.tags
    assert tried.attributes == plain.attributes
    assert tried.tags & ACTIVE == set()
    assert not [name for name in tried.attributes if name.startswith("on") or name in {"href", "src", "style"}]
    assert tried.open == []


def test_the_policy_allows_its_own_style_and_nothing_else() -> None:
    page = as_html(report())
    sheets = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)

    assert len(sheets) == 1
    digest = base64.b64encode(hashlib.sha256(sheets[0].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'" == POLICY
    assert POLICY.replace("'", "&#x27;") in page
    assert "url(" not in sheets[0]
    assert "@import" not in sheets[0]


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", ("tuned is better than base.", "tuned against base", "50.0 → 70.0 %", "+20.0 points [+8.0 … +32.0]")),
        ("zh", ("tuned 优于 base。", "tuned 对比 base", "50.0 → 70.0 %", "+20.0 个百分点 [+8.0 … +32.0]")),
    ],
)
def test_a_report_says_what_was_found(language: Language, said: tuple[str, ...]) -> None:
    seen = Seen(as_html(report(), language))

    for text in (*said, "What is the capital of Ostravia?", "In Pellingford.", WORDS[language]["noise"]):
        assert text in seen.text


def test_words_that_only_one_answer_has_are_marked() -> None:
    page = as_html(report(answer="It is Pellingford.", other="It is Paris."))

    assert "It is <del>Paris</del>." in page
    assert "It is <ins>Pellingford</ins>." in page


def test_a_report_without_figures_is_a_page_nevertheless() -> None:
    asked = questions(3)
    findings = analyse(asked, [], models=("base", "tuned"), primary="contains")

    seen = Seen(as_html(build(replace(report().run, is_whole=False), findings, asked, [])))

    assert "too few questions" in seen.text
    assert "The run has not ended" in seen.text
    assert seen.open == []


def test_a_very_long_answer_is_cut() -> None:
    page = as_html(report(answer="word " * 30_000))

    assert "… (cut)" in page
    assert len(page) < 60_000


def test_three_models_have_rows_with_their_names() -> None:
    asked = questions(16, ("facts", "sums"))
    given = [each for name in ("base", "one", "two") for each in answers(asked, name, [name == "two"] * 16)]
    findings = analyse(asked, given, models=("base", "one", "two"), primary="contains")

    seen = Seen(as_html(build(report().run, findings, asked, given)))

    for text in ("one against base · two against base", "all questions · one", "facts · two"):
        assert text in seen.text
