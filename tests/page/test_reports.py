"""A report of a comparison, opened from disk: whatever models said, nothing runs, nothing is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Request

from app.comparison.report.html.page import as_html
from app.comparison.report.words import Language
from tests.unit.comparison.report.attempts import ATTEMPTS
from tests.unit.comparison.report.samples import report
from tests.unit.comparison.report.test_page import everything

# What a page of a report may consist of, as the browser has understood it.
ELEMENTS = [
    "bdi",
    "body",
    "circle",
    "del",
    "details",
    "div",
    "h1",
    "h2",
    "h3",
    "head",
    "header",
    "html",
    "ins",
    "li",
    "line",
    "main",
    "meta",
    "p",
    "pre",
    "rect",
    "section",
    "small",
    "span",
    "style",
    "summary",
    "svg",
    "table",
    "tbody",
    "td",
    "text",
    "th",
    "thead",
    "title",
    "tr",
    "ul",
]
TAGS = "[...new Set([...document.querySelectorAll('*')].map(each => each.localName))]"
ATTRIBUTES = "[...document.querySelectorAll('*')].flatMap(each => each.getAttributeNames())"
OPEN_ALL = "document.querySelectorAll('details').forEach(each => { each.open = true })"
WIDTH = "document.documentElement.scrollWidth"


def test_no_attempt_in_a_report_runs_or_asks_for_anything(browser: Browser, tmp_path: Path) -> None:
    """Every text that comes from outside is the attempt: answers, thinking, questions, names, errors, notes."""
    context = browser.new_context()
    page = context.new_page()
    requests: list[str] = []
    dialogs: list[str] = []

    def asked(request: Request) -> None:
        requests.append(request.url)

    def opened(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("request", asked)
    page.on("dialog", opened)
    for number, attempt in enumerate([*ATTEMPTS, "\n".join(ATTEMPTS)]):
        file = tmp_path / f"{number}.html"
        file.write_text(as_html(everything(attempt)), encoding="utf-8")
        page.goto(file.as_uri())
        page.evaluate(OPEN_ALL)
        page.mouse.move(200, 200)

        assert set(page.evaluate(TAGS)) <= {*ELEMENTS}
        assert [name for name in page.evaluate(ATTRIBUTES) if name.startswith("on") or name in ("href", "src")] == []

    context.close()
    assert dialogs == []
    assert len(requests) == len(ATTEMPTS) + 1
    assert [url for url in requests if not url.startswith(tmp_path.as_uri())] == []


def test_what_a_report_would_let_in_its_policy_keeps_out(browser: Browser, tmp_path: Path) -> None:
    """Attempts written into the file by somebody else: the head forbids them."""
    file = tmp_path / "report.html"
    planted = "<script>document.title='pwned'</script><img src='http://127.0.0.1:9/leak.png' onerror='alert(1)'>"
    file.write_text(as_html(report()).replace("</main>", f"{planted}</main>"), encoding="utf-8")
    context = browser.new_context()
    page = context.new_page()
    answered: list[str] = []
    page.on("requestfinished", lambda request: answered.append(request.url))

    page.goto(file.as_uri())

    assert page.title() != "pwned"
    assert answered == [file.as_uri()]
    context.close()


@pytest.mark.parametrize(
    ("language", "scheme", "width"), [("en", "light", 1280), ("zh", "dark", 1280), ("en", "dark", 390)]
)
def test_a_report_fits_its_window(
    browser: Browser, tmp_path: Path, pictures: Path | None, language: Language, scheme: str, width: int
) -> None:
    file = tmp_path / "report.html"
    file.write_text(as_html(report(), language), encoding="utf-8")
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = context.new_page()

    page.goto(file.as_uri())
    page.evaluate(OPEN_ALL)

    assert page.evaluate(WIDTH) == width
    assert page.locator("ins").first.is_visible()
    if pictures is not None:
        page.screenshot(path=pictures / f"report-{language}-{scheme}-{width}.png", full_page=True)
    context.close()
