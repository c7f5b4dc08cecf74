"""A gateway with keys whose limits a client meets at once, and what openai-python and openai-node do then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
from openai import OpenAI

from app.keys import digest
from tests.journeys.gateway import QUESTION, Fake, Gateway
from tests.journeys.javascript import NODE, SCRIPT, printed

_CONFIG = """
backends:
  fake: {{kind: remote, url: "{url}"}}
models:
  "fake/*": {{backend: fake}}
keys:
"""
QUICK, SLOW = "fake/fake", "fake/fault:slow_first_event:0.5"


class Told(NamedTuple):
    """How long a client was told to wait, each time, and how long it took in all."""

    seconds: tuple[float, ...]
    took_s: float


@contextlib.contextmanager
def limited(fake: Fake, folder: Path, **keys: str) -> Iterator[Gateway]:
    """A gateway with these keys, each with its limits as the file has them; a key's secret is its name."""
    lines = [f'  - {{name: {name}, sha256: "{digest(name)}", {limits}}}\n' for name, limits in keys.items()]
    with Gateway(folder, _CONFIG.format(url=fake.url) + "".join(lines)) as gateway:
        gateway.line("fake: ready in")
        yield gateway


def by_python(gateway: Gateway, key: str, model: str, requests: int) -> Told:
    """So many requests of openai-python at the same time, as it is installed; all succeed."""
    told: list[float] = []

    def note(response: httpx2.Response) -> None:
        if response.status_code == 429:
            told.append(int(response.headers["retry-after-ms"]) / 1000)

    http = httpx2.Client(event_hooks={"response": [note]})
    began = time.monotonic()
    with (
        OpenAI(base_url=gateway.base_url, api_key=key, http_client=http) as client,
        ThreadPoolExecutor(requests) as pool,
    ):
        asking = [pool.submit(_ask, client, model) for _ in range(requests)]
        assert all(each.result() for each in asking)
    return Told(tuple(told), time.monotonic() - began)


def _ask(client: OpenAI, model: str) -> str | None:
    question: Any = QUESTION
    return client.chat.completions.create(model=model, messages=question, max_tokens=4).choices[0].message.content


def by_node(gateway: Gateway, key: str, model: str, requests: int, node: Path) -> Told:
    """The same with openai-node, which also looks that it waited as long as it was told."""
    began = time.monotonic()
    env = {"JOURNEY_KEY": key, "JOURNEY_MODEL": model, "JOURNEY_REQUESTS": str(requests)}
    said = printed([NODE, SCRIPT.name, "told_to_wait", gateway.base_url], node, **env).splitlines()
    assert said[-1] == "done"
    return Told(tuple(int(ms) / 1000 for ms in said[0].split()), time.monotonic() - began)
