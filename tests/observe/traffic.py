"""What clients do to the gateway of tests/observe/engines.py, all at once and for a while."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from tests.journeys.gateway import Gateway, until
from tests.observe.engines import AMPLE_KEY, SCARCE_KEY

STORY = "Write a very long story about a river."
PAUSE_S = 0.2
ASLEEP_S = 30.0
CERTIFICATE: Any = {
    "date": "2026-11-27",
    "reference": "the folder it was made from",
    "lines": [{"key": "stops", "what": "Where it stops", "verdict": "same", "how": "As in training."}],
}


class Clients:
    """Threads that go on asking until they are stopped. What goes wrong in one is raised at the end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._wrong: list[Exception] = []

    def go_on(
        self, ask: Callable[[httpx.Client, int], None], *, pause_s: float = PAUSE_S, key: str = AMPLE_KEY
    ) -> None:
        """One more client that asks again and again, with this key."""

        def life() -> None:
            try:
                with httpx.Client(base_url=self.url, timeout=60, headers=bearer(key)) as client:
                    for at in itertools.count():
                        ask(client, at)
                        if self._stopped.wait(pause_s):
                            return
            except Exception as exc:  # noqa: BLE001 - raised where the others wait
                self._wrong.append(exc)

        thread = threading.Thread(target=life)
        thread.start()
        self._threads.append(thread)

    def stop(self) -> None:
        """The last requests end, and nobody asks any more."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        for wrong in self._wrong:
            raise wrong


def bearer(key: str) -> dict[str, str]:
    """The header that presents it."""
    return {"authorization": f"Bearer {key}"}


def chat(model: str, *, tokens: int = 12, is_stream: bool = True) -> Callable[[httpx.Client, int], None]:
    """Asks that model, reads all of the answer, whatever it is."""

    def ask(client: httpx.Client, at: int) -> None:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": f"{STORY} Chapter {at}."}],
            "max_tokens": tokens,
            "stream": is_stream,
        }
        with contextlib.suppress(httpx.RemoteProtocolError):  # a stream that broke
            client.post("/v1/chat/completions", json=body)

    return ask


def leave(client: httpx.Client, at: int) -> None:
    """Goes away in the middle of an answer."""
    body = {"model": "base", "messages": [{"role": "user", "content": STORY}], "max_tokens": 12, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        next(response.iter_raw())


def mistake(client: httpx.Client, at: int) -> None:
    """Asks for what is refused before a model is chosen."""
    client.post("/v1/chat/completions", json={"model": "nobody-knows-me", "messages": []})
    client.post("/v1/chat/completions", content=b"{")


def embed(client: httpx.Client, at: int) -> None:
    """Asks for embeddings."""
    client.post("/v1/embeddings", json={"model": "base", "input": ["one", "two"]})


@contextlib.contextmanager
def traffic(gateway: Gateway) -> Iterator[None]:
    """Everything at once for as long as the block goes on: load on each engine, and everything that can go wrong."""
    clients = Clients(gateway.url)
    for _ in range(4):  # more than the slots
        clients.go_on(chat("smollm2"), pause_s=0)
    for model in ("base", "tuned", "daemon", "breaks", "refuses", "sturdy", "shared"):
        clients.go_on(chat(model))
    clients.go_on(chat("smollm2", is_stream=False))
    for _ in range(4):  # more than are let wait
        clients.go_on(chat("tight"))
    for ask in (leave, mistake, embed):
        clients.go_on(ask)
    clients.go_on(chat("base"), key=SCARCE_KEY)  # more than it may
    try:
        yield
    finally:
        clients.stop()


def events(gateway: Gateway) -> None:
    """What happens once: an engine starts on demand, one sleeps and wakes, one is killed and starts again, a
    certificate is written.
    """
    for model in ("base", "tuned"):
        certificate = {**CERTIFICATE, "model": model}
        gateway.order("POST", f"/admin/models/{model}/certificate", certificate)
    with httpx.Client(base_url=gateway.url, timeout=90, headers=bearer(AMPLE_KEY)) as client:
        chat("smollm2-late")(client, 0)
        until(lambda: gateway.backend("dozer")["state"] == "sleeping", ASLEEP_S)
        time.sleep(1.5)  # so that it is seen asleep
        chat("dozy")(client, 0)
    before = gateway.backend("late")
    os.kill(before["pid"], signal.SIGKILL)
    gateway.again(before)
