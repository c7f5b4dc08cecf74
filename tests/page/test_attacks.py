"""What a model writes is text: nothing of it runs, nothing of it makes the page ask for anything."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from tests.journeys.gateway import Gateway
from tests.page.conftest import Open
from tests.page.reloading import reload
from tests.page.test_chat import ask

# What an answer may become. Buttons are the page's own.
ELEMENTS = {
    *("a", "blockquote", "br", "button", "code", "del", "div", "em", "h3", "h4", "h5", "h6", "hr", "input", "li"),
    *("ol", "p", "pre", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"),
}
TAGS = "[...new Set([...document.querySelectorAll('.markdown *')].map(each => each.localName))]"
HANDLERS = "[...document.querySelectorAll('.markdown *')].flatMap(each => each.getAttributeNames())"
LINKS = "[...document.querySelectorAll('.markdown a')].map(each => each.protocol)"


def test_no_attempt_of_an_answer_runs_or_leaves_the_gateway(visit: Open) -> None:
    """That no request left and no script ran is asserted at the end of every visit."""
    page = visit()

    ask(page, "attacker", "Attack me")
    expect(page.locator(".figures")).to_be_visible()

    text = page.locator(".markdown").inner_text()
    assert set(page.evaluate(TAGS)) <= ELEMENTS
    assert {each for each in page.evaluate(HANDLERS) if each.startswith("on") or each in ("src", "style")} == set()
    assert set(page.evaluate(LINKS)) <= {"http:", "https:", "mailto:"}
    assert '<img src=x onerror="window.pwned=1">' in text
    assert "<script>window.pwned=2</script>" in text
    # Whoever hovers and clicks everything has not run anything either.
    for each in page.locator(".markdown span, .markdown p, .markdown td").all():
        each.hover()
    reload(page)
    expect(page.locator(".markdown")).to_contain_text("window.pwned=2")


def test_the_policy_forbids_markup_from_text_altogether(browser: Browser, site: Gateway) -> None:
    page = browser.new_page()
    page.goto(site.url)

    attempt = "document.createElement('div').innerHTML = '<i>x</i>'; return 'done'"
    refused = page.evaluate(f"() => {{ try {{ {attempt} }} catch (error) {{ return error.name }} }}")

    page.context.close()
    assert refused == "TypeError"


def test_an_answer_that_is_hard_to_read_does_not_hold_the_page_up(visit: Open) -> None:
    """Emphasis that never ends, quotes without end, one very long line: each took pages elsewhere minutes."""
    page = visit()
    page.locator(".toolbar select").select_option("labyrinth")
    page.locator(".composer textarea").fill("Go")
    page.locator(".composer textarea").press("Enter")

    expect(page.locator(".figures")).to_be_visible()
    expect(page.locator(".markdown")).to_contain_text("the end")
