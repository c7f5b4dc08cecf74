"""Keys, usage and the audit, as an administrator sees them."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.journeys.gateway import KEY, OFFICE_KEY, Gateway
from tests.page.conftest import Open
from tests.page.narrator import Narrator
from tests.rigs.cli import run

CONFIG = """
backends:
  written: {{kind: remote, url: "{url}"}}
models:
  base: {{backend: written, price: {{input: 1000000, output: 1000000}}}}
  tuned: {{backend: written}}
"""


@pytest.fixture(scope="module")
def shared(narrator: Narrator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with an administrator's key, and a store."""
    with Gateway(tmp_path_factory.mktemp("shared"), CONFIG.format(url=narrator.url), key=KEY) as program:
        program.line("written: ready in")
        yield program


@pytest.fixture(scope="module")
def unlocked(narrator: Narrator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that asks for no key, until it has one."""
    with Gateway(tmp_path_factory.mktemp("unlocked"), CONFIG.format(url=narrator.url)) as program:
        program.line("written: ready in")
        yield program


def as_admin(visit: Open, gateway: Gateway, view: str = "keys") -> Page:
    page = visit(f"#/team/{view}", url=gateway.url)
    page.get_by_role("textbox", name="Key").fill(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Audit")).to_be_visible()
    return page


def make(page: Page, name: str, role: str = "user", **fields: str) -> str:
    """A key made by the form; the secret that is shown."""
    page.get_by_role("button", name="New key").click()
    form = page.get_by_role("dialog", name="New key")
    form.get_by_label("Name", exact=True).fill(name)
    form.get_by_label("Role").select_option(role)
    for label, value in fields.items():
        form.get_by_label(label.replace("_", " "), exact=True).fill(value)
    form.get_by_role("button", name="Make the key").click()
    shown = page.get_by_role("dialog", name="The key, shown only now")
    secret = shown.locator(".secret").inner_text()
    shown.get_by_role("button", name="Close").click()
    return secret


def asked(gateway: Gateway, secret: str, model: str = "base") -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"authorization": f"Bearer {secret}"}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def test_a_key_is_made_shown_once_changed_replaced_and_ended(visit: Open, shared: Gateway) -> None:
    page = as_admin(visit, shared)
    secret = make(page, "reading room", Team="library", Requests_a_minute="50", Budget="100000")
    card = page.locator(".card").filter(has_text="reading room")
    expect(card).to_contain_text("50 requests/min")
    expect(card).to_contain_text("100,000 tokens a month")
    expect(card).to_contain_text("library")
    assert secret not in page.content()
    answer = asked(shared, secret)
    assert (answer.status_code, answer.headers["x-ratelimit-limit-requests"]) == (200, "50")

    card.get_by_role("button", name="Edit").click()
    form = page.get_by_role("dialog", name="Key reading room")
    form.get_by_label("Models, comma separated").fill("tuned")
    form.get_by_label("Requests a minute").fill("seven")
    form.get_by_role("button", name="Save").click()
    expect(form.get_by_role("alert")).to_contain_text("Requests a minute")
    form.get_by_label("Requests a minute").fill("7")
    form.get_by_role("button", name="Save").click()
    expect(card).to_contain_text("7 requests/min")
    assert asked(shared, secret).status_code == 404
    assert asked(shared, secret, "tuned").status_code == 200

    card.get_by_role("button", name="Rotate").click()
    page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    shown = page.get_by_role("dialog", name="The key, shown only now")
    second = shown.locator(".secret").inner_text()
    shown.get_by_role("button", name="Close").click()
    assert second != secret
    assert [asked(shared, each, "tuned").status_code for each in (secret, second)] == [200, 200]

    card.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(card.locator(".state")).to_have_text("revoked")
    assert [asked(shared, each, "tuned").status_code for each in (secret, second)] == [401, 401]


def test_what_the_gateway_refuses_is_told_in_the_form(visit: Open, shared: Gateway) -> None:
    page = as_admin(visit, shared)
    make(page, "twice")

    page.get_by_role("button", name="New key").click()
    form = page.get_by_role("dialog", name="New key")
    form.get_by_label("Name", exact=True).fill("twice")
    form.get_by_role("button", name="Make the key").click()

    expect(form.get_by_role("alert")).to_contain_text("twice")


def test_usage_is_shown_by_key_model_and_day_and_saved_as_csv(visit: Open, shared: Gateway) -> None:
    page = as_admin(visit, shared)
    secret = make(page, "counted")
    for _ in range(3):
        assert asked(shared, secret).status_code == 200

    row = page.locator("tbody tr").filter(has_text="counted")
    page.get_by_role("link", name="Usage").click()
    page.get_by_label("Usage by").select_option("model")
    page.get_by_label("Usage by").select_option("key")
    expect(row.locator("td").first).to_have_text("3")
    page.get_by_label("Since").select_option("1")
    expect(row.locator("td").first).to_have_text("3")
    page.get_by_label("Usage by").select_option("day")
    expect(page.locator("tbody tr")).to_have_count(1)
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()

    assert download.value.suggested_filename == "modelport-usage-by-day.csv"


def test_the_audit_tells_who_did_what_here_and_on_the_machine(visit: Open, shared: Gateway, tmp_path: Path) -> None:
    page = as_admin(visit, shared)
    secret = make(page, "audited", Tokens_a_minute="900")
    page.get_by_role("link", name="Audit").click()
    row = page.locator("tbody tr").filter(has_text="audited").filter(has_text="keys.new")
    expect(row).to_contain_text("tpm: 900")
    expect(row).to_contain_text("page · 127.0.0.1")
    expect(row).to_contain_text("done")
    assert secret not in page.content()

    assert run(tmp_path, "reload", "--state", str(shared.state)).code == 0
    page.get_by_label("What").fill("reload")
    page.get_by_role("button", name="Show", exact=True).click()
    row = page.locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("command line")
    told = run(tmp_path, "audit", "--action", "reload", "--since", "1h", "--state", str(shared.state)).out
    assert re.search(rf"{getpass.getuser()} +socket +reload +done", told)


def test_whoever_is_no_administrator_has_no_team(visit: Open, locked: Gateway) -> None:
    page = visit("#/team", url=locked.url)
    page.get_by_role("textbox", name="Key").fill(OFFICE_KEY)
    page.keyboard.press("Enter")

    expect(page.locator("main")).to_contain_text("For administrators")
    expect(page.locator(".bar nav a")).to_have_count(4)


def test_the_first_key_closes_the_gateway_and_the_page_uses_it(visit: Open, unlocked: Gateway) -> None:
    page = visit("#/team", url=unlocked.url)
    assert asked(unlocked, "none").status_code == 200

    secret = make(page, "first", role="admin")

    expect(page.locator(".card").filter(has_text="first")).to_be_visible()
    expect(page.get_by_role("button", name="Key: given")).to_be_visible()
    assert asked(unlocked, "none").status_code == 401
    assert asked(unlocked, secret).status_code == 200
