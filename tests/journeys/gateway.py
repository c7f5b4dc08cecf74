"""Programs of a journey as a user starts them: `python -m app serve`, and an engine that fails on demand beside it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.rigs.program import PATIENCE_S, Program

MODEL = "smollm2-135m-instruct"
KEY = "mp-journey-0123456789"
OFFICE_KEY = "mp-office-0123456789"
# Under way for as long as `max_tokens` last, however fast the machine is.
ENDLESS: Any = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Write a very long story about a river."}],
    "logit_bias": {"2": -100},  # <|im_end|>: it never stops by itself
}
QUESTION = [{"role": "user", "content": "What is 7+5?"}]


def modelport() -> list[str]:
    """How the command line is called: of this checkout, or of the installation that MODELPORT_TEST_COMMAND names."""
    installed = os.environ.get("MODELPORT_TEST_COMMAND")
    return [installed] if installed else [sys.executable, "-m", "app"]


class Gateway(Program):
    """One `python -m app serve` on a free port, with a configuration and a state folder of its own.

    `under`: what starts it in place of us, made of our command line.
    """

    def __init__(
        self,
        folder: Path,
        config: str,
        key: str | None = None,
        under: Callable[[list[str]], list[str]] = list,
    ) -> None:
        path = folder / "modelport.yaml"
        path.write_text(config)
        self.key = key
        self.state = folder / "state"
        unset = {"API_HOST", "API_PORT", "API_KEY", "API_MODEL_NAME", "FASTAPI_ROOT_PATH"}
        kept = {"MODELPORT_CARRIER"}  # `make test-carriers`
        env = {k: v for k, v in os.environ.items() if k in kept or not (k in unset or k.startswith("MODELPORT_"))}
        env |= {"API_KEY": key} if key else {}
        argv = [*modelport(), "serve", "--config", str(path), "--state", str(self.state), "--port", "0"]
        super().__init__(under(argv), env, folder / "log")
        self._admin = httpx.Client(transport=httpx.HTTPTransport(uds=str(self.state / "control.sock")), timeout=30)

    @property
    def url(self) -> str:
        """The URL at which it listens."""
        return self.line(r"listens on (http://\S+)")[1]

    @property
    def base_url(self) -> str:
        """The base URL for an SDK."""
        return f"{self.url}/v1"

    @property
    def curl(self) -> str:
        """The line that the banner invites to try."""
        return self.line(r"^\s*(curl .*)$")[1]

    def ask(self, path: str) -> Any:
        """A response of the control socket."""
        return self._admin.get(f"http://admin{path}").json()

    def order(self, method: str, path: str, body: Any) -> Any:
        """The response to an administrator's order over the control socket."""
        reply = self._admin.request(method, f"http://admin{path}", json=body, timeout=600)
        assert reply.is_success, reply.text
        return reply.json()

    def status(self) -> Any:
        """`/admin/status`, over the control socket."""
        return self.ask("/admin/status")

    def backend(self, name: str) -> Any:
        """One backend in its status."""
        return next(each for each in self.status()["health"]["backends"] if each["name"] == name)

    def again(self, before: Any) -> Any:
        """That backend once it serves by another process than in its status `before`."""
        until(lambda: self._is_again(before))
        return self.backend(before["name"])

    def _is_again(self, before: Any) -> bool:
        now = self.backend(before["name"])
        return bool(now["state"] == "ready" and now["pid"] != before["pid"])

    def close(self) -> None:
        """End it."""
        self._admin.close()
        super().close()


class Fake(Program):
    """The engine that fails on demand, in a process of its own."""

    def __init__(self) -> None:
        super().__init__([sys.executable, "-m", "tests.fakes.engine"])
        self.url = self.line(r"(http://\S+/v1)")[1]

    def requests(self, request_id: str) -> list[dict[str, Any]]:
        """The requests that it was sent with that id."""
        requests = httpx.get(f"{self.url.removesuffix('/v1')}/fake/requests").json()
        return [each for each in requests if each["headers"].get("x-request-id") == request_id]


def until(is_so: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait for a state."""
    end = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.02)
