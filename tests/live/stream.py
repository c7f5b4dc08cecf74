"""A client that reads one long stream in a thread of its own, and notes what came and how it ended."""

from __future__ import annotations

import json
import threading
import time

import httpx

from tests.journeys.gateway import until
from tests.live.engines import GONE_S, START_S


class Stream:
    """A stream whose first events have come. It never ends by itself before `max_tokens`."""

    def __init__(self, url: str, model: str = "tiny", max_tokens: int = 1900) -> None:
        self.received = b""
        self.is_cut = False  # on the wire, whatever was said before
        self.ended_at = 0.0
        self._is_enough = False
        self._url = f"{url}/v1/chat/completions"
        asked = [{"role": "user", "content": "Tell a story."}]
        self._body = {"model": model, "messages": asked, "max_tokens": max_tokens, "stream": True, "ignore_eos": True}
        # A daemon: what never ends must not hold up the end of the tests.
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        until(lambda: self.events > 3 or not self._thread.is_alive(), GONE_S)

    def _read(self) -> None:
        try:
            with httpx.stream("POST", self._url, json=self._body, timeout=START_S) as answer:
                for piece in answer.iter_raw():
                    self.received += piece
                    if self._is_enough:
                        return
        except httpx.TransportError:
            self.is_cut = True
        finally:
            self.ended_at = time.monotonic()

    @property
    def events(self) -> int:
        """How many events have come."""
        return self.received.count(b"data: ")

    @property
    def is_whole(self) -> bool:
        """Whether it came to its proper end."""
        return not self.is_cut and b"[DONE]" in self.received and self.error is None

    @property
    def error(self) -> str | None:
        """The code of the error event with which it ended."""
        last = self.received.rstrip().rpartition(b"data: ")[2]
        return str(json.loads(last)["error"]["code"]) if b'"error"' in last else None

    def goes_on(self) -> None:
        """Wait until more of it has come."""
        seen = self.events
        until(lambda: self.events > seen or not self._thread.is_alive())
        assert self._thread.is_alive(), self.error

    def wait(self) -> None:
        """Wait until it has ended."""
        self._thread.join(START_S)
        assert not self._thread.is_alive()

    def leave(self) -> None:
        """Close it: it is not needed any more."""
        self._is_enough = True
        self.wait()
