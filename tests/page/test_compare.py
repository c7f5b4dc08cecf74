"""One question to several models: side by side, differences, votes, blind, and what is exported."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Page, Route, expect

from tests.page.conftest import Open
from tests.page.narrator import Narrator
from tests.page.reloading import reload

SIDES = ".side-answer"
VOTE = ".votes"


def compare(page: Page, models: tuple[str, ...], question: str) -> None:
    for at, model in enumerate(models):
        page.locator(".choice select").nth(at).select_option(model)
    page.locator(".composer textarea").fill(question)
    page.get_by_role("button", name="Compare", exact=True).click()


def test_two_models_answer_side_by_side_under_the_same_settings(visit: Open, narrator: Narrator) -> None:
    page = visit("#/compare")

    compare(page, ("base", "tuned"), "What is a SQL injection?")

    expect(page.locator(VOTE)).to_be_visible()
    expect(page.locator(f"{SIDES} h3.by, {SIDES} header h3")).to_have_text(["base", "tuned"])
    expect(page.locator(f"{SIDES} .figures").nth(1)).to_contain_text("First token")
    expect(page.locator(".settings")).to_contain_text("Temperature 0")
    one, other = narrator.asked[-2:]
    assert {one["model"], other["model"]} == {"base", "tuned"}
    assert (one["messages"], one["temperature"], one["seed"]) == (
        other["messages"],
        other["temperature"],
        other["seed"],
    )


def test_differences_are_marked_by_words(visit: Open) -> None:
    page = visit("#/compare")
    compare(page, ("base", "tuned"), "What is a SQL injection?")

    page.get_by_role("button", name="Show differences").click()

    second = page.locator(f"{SIDES} .differences").nth(1)
    expect(second.locator("del").first).to_have_text("smuggle")
    expect(second.locator("ins").first).to_have_text("run")
    expect(second).to_contain_text("smugglerun commands")
    expect(page.locator(f"{SIDES} .differences").nth(0).locator("ins, del")).to_have_count(0)


def test_two_names_of_the_embedded_engine_and_a_third_model(visit: Open) -> None:
    page = visit("#/compare")
    page.get_by_role("button", name="Add a third model").click()

    compare(page, ("smollm2", "smollm2-twin", "base"), "What is 7+5?")
    force = page.get_by_role("button", name="Compare nevertheless")
    expect(force.or_(page.locator(VOTE))).to_be_visible()
    if force.is_visible():  # another engine with other settings of its own
        force.click()

    expect(page.locator(VOTE)).to_be_visible()
    expect(page.locator(SIDES)).to_have_count(3)
    expect(page.locator(f"{SIDES} .figures")).to_have_count(3)


def test_a_vote_is_kept_and_exported_as_a_preference(visit: Open, tmp_path: Path) -> None:
    page = visit("#/compare")
    compare(page, ("thinker", "tuned"), "What is 7+5?")
    page.get_by_role("button", name="A is better").click()
    expect(page.locator(".best")).to_have_count(1)

    reload(page)
    expect(page.locator(".best h3").first).to_have_text("thinker")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export JSONL").click()
    download.value.save_as(tmp_path / "preferences.jsonl")

    (line,) = [json.loads(each) for each in (tmp_path / "preferences.jsonl").read_text().splitlines()]
    assert line["conversations"] == [{"from": "human", "value": "What is 7+5?"}]
    assert line["chosen"] == {"from": "gpt", "value": "Twelve."}
    assert line["rejected"]["value"].startswith("A SQL injection")
    assert line["models"] == ["thinker", "tuned"]


def test_a_blind_comparison_hides_the_names_until_the_vote(visit: Open) -> None:
    page = visit("#/compare")
    page.get_by_label("Blind").check()

    told: list[str] = []

    def pass_on(route: Route) -> None:
        response = route.fetch()
        told.append(response.text())
        route.fulfill(response=response)

    page.route("**/v1/compare", pass_on)
    compare(page, ("base", "tuned"), "What is a SQL injection?")
    expect(page.locator(VOTE)).to_be_visible()

    expect(page.locator(f"{SIDES} header h3")).to_have_text(["Whose it is shows after the vote"] * 2)
    expect(page.locator(f"{SIDES} .figures").first).to_have_text("")
    reload(page)
    expect(page.locator(f"{SIDES} header h3")).to_have_text(["Whose it is shows after the vote"] * 2)
    page.get_by_role("button", name="A is better").click()
    expect(page.locator(".best")).to_have_count(1)
    names = page.locator(f"{SIDES} header h3").all_inner_texts()
    assert sorted(names) == ["base", "tuned"]
    is_base = "smuggle commands" in page.locator(SIDES).nth(0).inner_text()
    assert names[0] == ("base" if is_base else "tuned")
    page.get_by_role("button", name="Votes").click()
    expect(page.locator("dialog tbody tr")).to_have_count(2)
    assert "event: end" in told[0]
    assert '"base"' not in told[0]
    assert '"tuned"' not in told[0]


def test_one_models_failure_leaves_the_others_answer(visit: Open, narrator: Narrator) -> None:
    page = visit("#/compare")

    compare(page, ("base", "broken"), "What is a SQL injection?")

    expect(page.locator(SIDES).nth(1).locator(".failure")).to_be_visible()
    expect(page.locator(SIDES).nth(0).locator("ol li")).to_have_count(3)
    expect(page.locator(".verdict")).to_contain_text("A vote takes an answer of every model.")


def test_stop_ends_all_of_them(visit: Open) -> None:
    page = visit("#/compare")
    compare(page, ("endless", "endless-too"), "Tell me of a river")
    expect(page.locator(f"{SIDES} .markdown").nth(1)).to_contain_text("and then")

    page.get_by_role("button", name="Stop", exact=True).click()

    expect(page.locator(f"{SIDES} .end-note")).to_have_text(["Stopped.", "Stopped."])


def test_what_cannot_be_compared_is_said_before_it_is_sent(visit: Open) -> None:
    page = visit("#/compare")

    page.locator(".choice select").nth(0).select_option("base")
    page.locator(".choice select").nth(1).select_option("base")
    page.locator(".composer textarea").fill("Hello")

    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_disabled()
    expect(page.locator(".hint")).to_have_text("Choose different models")
