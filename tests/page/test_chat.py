"""A chat on the page: streaming, stopping, thinking, what is kept, and what is exported."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

from playwright.sync_api import FilePayload, Page, Route, expect

from tests.journeys.gateway import until
from tests.page.conftest import Open
from tests.page.narrator import Narrator
from tests.page.reloading import reload
from tests.page.texts import CHAPTERS

MODEL = ".toolbar select"
QUESTION = ".composer textarea"


def ask(page: Page, model: str, question: str) -> None:
    page.locator(MODEL).select_option(model)
    page.locator(QUESTION).fill(question)
    page.locator(QUESTION).press("Enter")


def test_an_answer_streams_in_as_markdown_with_its_figures(visit: Open) -> None:
    page = visit()

    ask(page, "base", "What is a SQL injection?")

    answer = page.locator(".turn.model")
    expect(answer.locator(".figures")).to_contain_text("First token")
    expect(answer.locator("strong")).to_have_text("pastes user input into the text")
    expect(answer.locator("ol li")).to_have_count(3)
    expect(answer.locator("pre code")).to_contain_text("cursor.execute")
    expect(answer.locator("tbody tr")).to_have_count(3)
    expect(answer.locator("a")).to_have_attribute("rel", "noopener noreferrer nofollow")


def test_the_embedded_model_answers_and_the_conversation_goes_on(visit: Open) -> None:
    page = visit()

    ask(page, "smollm2", "What is 7+5?")
    expect(page.locator(".figures")).to_have_count(1)
    ask(page, "smollm2", "And 8+5?")

    expect(page.locator(".figures")).to_have_count(2)
    expect(page.locator(".turn.user")).to_have_count(2)


def test_stop_ends_the_answer_and_the_engines_work(visit: Open, narrator: Narrator) -> None:
    page, left = visit(), narrator.left
    ask(page, "endless", "Tell me of a river")
    expect(page.locator(".markdown")).to_contain_text("and then")

    page.get_by_role("button", name="Stop", exact=True).click()

    expect(page.locator(".end-note")).to_have_text("Stopped.")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    until(lambda: narrator.left > left)


def test_thinking_is_folded_and_not_sent_back(visit: Open, narrator: Narrator) -> None:
    page = visit()
    ask(page, "thinker", "What is 7+5?")
    expect(page.locator(".figures")).to_be_visible()

    expect(page.locator(".markdown")).to_have_text("Twelve.")
    expect(page.locator(".thought")).to_be_hidden()
    page.locator(".thinking summary").click()
    expect(page.locator(".thought")).to_contain_text("The user asks for 7+5")
    ask(page, "thinker", "Sure?")
    expect(page.locator(".figures")).to_have_count(2)
    assert [each["content"] for each in narrator.asked[-1]["messages"]] == ["What is 7+5?", "Twelve.", "Sure?"]


def test_parameters_and_the_system_prompt_go_with_the_question(visit: Open, narrator: Narrator) -> None:
    page = visit()
    page.get_by_role("button", name="Parameters").click()
    page.get_by_label("System prompt").fill("You are terse.")
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_label("Longest answer").fill("64")
    page.get_by_label("Stop texts").fill("END")
    page.get_by_label("More parameters").fill('{"presence_penalty": 0.5}')

    ask(page, "base", "Hello")
    expect(page.locator(".figures")).to_be_visible()

    sent = narrator.asked[-1]
    assert sent["messages"][0] == {"role": "system", "content": "You are terse."}
    assert (sent["temperature"], sent["max_tokens"], sent["stop"]) == (0.3, 64, ["END"])
    assert sent["presence_penalty"] == 0.5
    page.get_by_label("Temperature").fill("warm")
    page.locator(QUESTION).fill("Again")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    expect(page.locator(".wrong")).to_contain_text("Temperature")


def test_a_question_is_edited_and_an_answer_asked_for_again(visit: Open) -> None:
    page = visit()
    ask(page, "base", "What is a SQL injektion?")
    expect(page.locator(".figures")).to_be_visible()

    page.get_by_role("button", name="Answer again").click()
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".figures")).to_be_visible()
    page.get_by_role("button", name="Edit the question").click()

    expect(page.locator(QUESTION)).to_have_value("What is a SQL injektion?")
    expect(page.locator(".turn")).to_have_count(0)


def test_what_failed_is_told_and_can_be_tried_again(visit: Open) -> None:
    page = visit()
    page.route("**/v1/chat/completions", lambda route: route.abort())
    ask(page, "base", "Hello")
    expect(page.locator(".answer .failure")).to_contain_text("cannot be reached")

    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Answer again").click()

    expect(page.locator(".markdown")).to_contain_text("SQL injection")


def test_conversations_are_kept_in_the_browser_and_exported(visit: Open, tmp_path: Path) -> None:
    page = visit()
    ask(page, "thinker", "What is 7+5?")
    expect(page.locator(".figures")).to_be_visible()

    reload(page)
    expect(page.locator(".markdown")).to_have_text("Twelve.")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export JSONL").click()
    download.value.save_as(tmp_path / "chats.jsonl")

    lines = [json.loads(line) for line in (tmp_path / "chats.jsonl").read_text().splitlines()]
    asked, said = {"role": "user", "content": "What is 7+5?"}, {"role": "assistant", "content": "Twelve."}
    assert lines == [{"messages": [asked, said]}]


def test_what_is_complete_of_a_growing_answer_is_not_made_again(visit: Open) -> None:
    """Pages that read the whole text anew with each piece stand still at the end of a long answer."""
    page = visit()
    ask(page, "chapters", "Write a book")
    expect(page.locator(".markdown h3").nth(1)).to_be_attached()

    page.evaluate("window.first = document.querySelector('.markdown h3')")
    expect(page.locator(".figures")).to_be_visible()

    assert page.locator(".markdown h3").count() == CHAPTERS
    assert page.evaluate("window.first === document.querySelector('.markdown h3')")


def test_a_picture_goes_with_the_question_where_the_model_can_see(visit: Open, narrator: Narrator) -> None:
    page = visit()
    expect(page.get_by_role("button", name="Add a picture")).to_have_count(0)

    def with_eyes(route: Route) -> None:
        listed = route.fetch().json()
        for each in listed["data"]:
            each["capabilities"]["vision"] = "declared"
        route.fulfill(json=listed)

    page.route("**/v1/models", with_eyes)
    reload(page)
    page.locator(MODEL).select_option("base")
    expect(page.get_by_role("button", name="Add a picture")).to_be_visible()
    page.locator("input[type=file]").set_input_files(FilePayload(name="red.png", mimeType="image/png", buffer=png()))
    expect(page.locator(".pictures img")).to_be_visible()
    ask(page, "base", "What is this?")
    expect(page.locator(".figures")).to_be_visible()

    picture, text = narrator.asked[-1]["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert text == {"type": "text", "text": "What is this?"}
    expect(page.locator(".turn.user img")).to_be_visible()


def png(side: int = 8) -> bytes:
    """A red square."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head, rows = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), (b"\0" + b"\xff\0\0" * side) * side
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_it_works_by_keyboard_alone(visit: Open) -> None:
    page = visit()
    page.locator(MODEL).select_option("base")
    page.locator("body").click(position={"x": 700, "y": 500})

    page.keyboard.press("Tab")
    for _ in range(40):
        if page.evaluate("document.activeElement.tagName") == "TEXTAREA":
            break
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        page.keyboard.press("Tab")
    page.keyboard.type("What is a SQL injection?")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("In short.")
    page.keyboard.press("Enter")

    expect(page.locator(".turn.user p")).to_have_text("What is a SQL injection?\nIn short.")
    expect(page.locator(".figures")).to_be_visible()


def test_enter_that_ends_the_composition_of_a_word_does_not_send(visit: Open) -> None:
    page = visit()
    page.locator(QUESTION).fill("你好")

    page.locator(QUESTION).dispatch_event("keydown", {"key": "Enter", "isComposing": True})

    expect(page.locator(QUESTION)).to_have_value("你好")
    expect(page.locator(".turn")).to_have_count(0)
