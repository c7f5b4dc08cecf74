"""Models, reports, the key, both languages, both themes, and a phone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.comparison.report.html.page import as_html
from app.comparison.report.stored import as_json
from tests.journeys.gateway import KEY, OFFICE_KEY, Gateway
from tests.page.conftest import Open
from tests.page.test_chat import ask
from tests.unit.comparison.report.samples import report

ATTACK = "In Pellingford. <img src=x onerror=window.pwned=1><script>window.pwned=2</script>"
PLACES = ("chat", "compare", "reports", "models", "team")


@pytest.fixture(scope="module")
def run(site: Gateway) -> str:
    """A run that has a report, whose models this gateway serves."""
    folder = site.state / "comparisons" / "20261127-a"
    folder.mkdir(parents=True)
    written = report(answer=ATTACK)
    entry = {"id": folder.name, "created": 1795786800, "models": ["base", "tuned"], "questions": 50, "pair": None}
    (folder / "run.json").write_text(json.dumps({**entry, "state": "finished"}))
    (folder / "report.json").write_text(as_json(written))
    (folder / "report.html").write_text(as_html(written))
    return folder.name


def test_an_administrator_stops_and_starts_an_engine_and_reads_its_log(visit: Open) -> None:
    page = visit("#/models")
    card = page.locator(".card").filter(has_text="smollm2-twin")
    expect(card.locator(".state")).to_have_text("ready")

    card.get_by_role("button", name="Log").click()
    expect(page.locator("dialog .log")).to_contain_text("llama")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    card.get_by_role("button", name="Stop").click()
    expect(card.locator(".state")).to_have_text("stopped")
    card.get_by_role("button", name="Start").click()
    expect(card.locator(".state")).to_have_text("ready")


def test_a_run_opens_as_a_report_in_which_nothing_of_a_models_runs(visit: Open, run: str, tmp_path: Path) -> None:
    page = visit("#/reports")
    page.get_by_role("link", name="base · tuned").click()

    expect(page.locator(".headline")).to_have_text("tuned is better than base.")
    expect(page.locator("tbody tr").first).to_contain_text("+20.0 [+8.0, +32.0]")
    page.locator("details summary").first.click()
    expect(page.locator(".differences").nth(1)).to_contain_text("<script>window.pwned=2</script>")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as HTML").click()
    download.value.save_as(tmp_path / "report.html")
    saved = page.context.new_page()
    asked: list[str] = []
    saved.on("request", lambda each: asked.append(each.url))
    saved.goto(f"file://{tmp_path}/report.html")
    assert saved.evaluate("window.pwned") is None
    assert asked == [f"file://{tmp_path}/report.html"]


def test_whoever_has_no_key_is_asked_for_it_and_sees_what_it_may_use(visit: Open, locked: Gateway) -> None:
    page = visit(url=locked.url)
    expect(page.get_by_role("dialog")).to_contain_text("asks for a key")

    page.get_by_role("textbox", name="Key").fill("mp-wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("refused this key")
    page.get_by_role("textbox", name="Key").fill(OFFICE_KEY)
    page.keyboard.press("Enter")
    ask(page, "base", "Hello")

    expect(page.locator(".figures")).to_be_visible()
    expect(page.locator(".toolbar option")).to_have_text(["base"])
    page.goto(f"{locked.url}/#/models")
    expect(page.locator(".card")).to_have_count(1)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)


def test_the_administrators_key_is_kept_only_if_wished(visit: Open, locked: Gateway) -> None:
    page = visit("#/models", url=locked.url)
    page.get_by_role("textbox", name="Key").fill(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop").first).to_be_visible()

    assert page.evaluate("localStorage.getItem('modelport.key')") is None
    page.reload()
    expect(page.get_by_role("button", name="Stop").first).to_be_visible()
    page.get_by_role("button", name="Key: given").click()
    page.get_by_role("button", name="Forget it").click()
    page.get_by_role("button", name="Use", exact=True).click()
    assert page.evaluate("sessionStorage.getItem('modelport.key')") is None


@pytest.mark.parametrize("place", PLACES)
def test_the_page_speaks_chinese_to_those_who_do(visit: Open, run: str, place: str) -> None:
    page = visit(f"#/{place}", locale="zh-CN")
    expect(page.locator(".bar nav a[aria-current]")).to_have_text(
        {"chat": "对话", "compare": "对比", "reports": "报告", "models": "模型", "team": "团队"}[place]
    )

    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    page.get_by_label("语言").select_option("en")

    expect(page.locator("nav a").first).to_have_text("Chat")
    page.reload()
    expect(page.locator("nav a").first).to_have_text("Chat")


@pytest.mark.parametrize("place", [*PLACES, "reports/20261127-a", "team/usage", "team/audit"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_are_readable_in_both_themes_and_fit_a_phone(visit: Open, run: str, place: str, theme: str) -> None:
    phone = {"width": 360, "height": 740}
    page = visit(f"#/{place}", viewport=phone, is_mobile=True, has_touch=True, color_scheme=theme)
    expect(page.locator("main h1, main h2, main .card").first).to_be_attached()
    if place == "models":
        expect(page.locator(".card").first).to_be_visible()

    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert pale(page) == []


def pale(page: Page) -> list[str]:
    """Texts whose contrast to their ground is less than WCAG's 4.5, those of disabled buttons aside."""
    texts: list[str] = page.evaluate(
        """() => {
            const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
            const rgb = (colour, under = [255, 255, 255]) => {
                canvas.fillStyle = `rgb(${under})`; canvas.fillRect(0, 0, 1, 1);
                canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
                return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
            };
            const light = (colour) => {
                const [r, g, b] = colour.map((each) => each / 255)
                    .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const ground = (element) => element
                ? rgb(getComputedStyle(element).backgroundColor, ground(element.parentElement)) : [255, 255, 255];
            const result = [];
            for (const element of document.querySelectorAll("body *")) {
                const own = [...element.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
                if (!own || !element.checkVisibility() || element.closest(":disabled")) continue;
                const under = ground(element);
                const [a, b] = [light(rgb(getComputedStyle(element).color, under)), light(under)];
                const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                if (contrast < 4.5) result.push(`${element.textContent.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
            }
            return result;
        }"""
    )
    return texts


def test_a_text_from_right_to_left_stands_on_the_right(visit: Open) -> None:
    page = visit()

    ask(page, "arabic", "ما هو حقن SQL؟")
    expect(page.locator(".figures")).to_be_visible()

    first = page.locator(".markdown p").first
    assert page.evaluate("element => getComputedStyle(element).direction", first.element_handle()) == "rtl"
    assert page.evaluate("document.documentElement.dir") == ""


def test_the_theme_is_the_systems_until_the_user_chooses(visit: Open) -> None:
    page = visit(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)

    page.get_by_role("button", name="Theme: as the system").click()
    light = page.evaluate(ground)
    page.get_by_role("button", name="Theme: light").click()

    assert dark != light
    assert page.evaluate(ground) == dark
