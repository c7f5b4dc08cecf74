"""The daemons that the Ollama journeys run on: the fake daemon, and a real one where `make test-ollama` finds it.

`python -m tests.journeys.ollama_daemon` prints which those are.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests import ROOT

PATIENCE_S = 60.0
WANTED = "MODELPORT_TEST_OLLAMA"  # set by the make target: without it nobody's daemon is touched


def real() -> str | None:
    """A real daemon: a program to start (OLLAMA_BIN), or a URL where one answers."""
    binary = os.environ.get("OLLAMA_BIN")
    if binary:
        return binary
    host = os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434"
    url = host if host.startswith("http") else f"http://{host}"
    with contextlib.suppress(httpx.HTTPError, httpx.InvalidURL):
        if "version" in httpx.get(f"{url}/api/version", timeout=2, trust_env=False).text:
            return url
    return None


def daemons() -> list[str]:
    """The daemons by name, for the tests' parameters."""
    daemon = real() if os.environ.get(WANTED) else None
    return ["fake", *([daemon] if daemon else [])]


@contextlib.contextmanager
def running(which: str, folder: Path) -> Iterator[str]:
    """The URL of that daemon; one that is started here is ended."""
    if which.startswith("http"):
        yield which
        return
    command = [sys.executable, "-m", "tests.fakes.ollama"] if which == "fake" else [which]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_MODELS": str(folder), "OLLAMA_NO_CLOUD": "1"}
    process = subprocess.Popen([*command, "serve"], cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    try:
        yield _answering(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _answering(url: str) -> str:
    end = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, trust_env=False).status_code == 200:
                return url
        assert time.monotonic() < end, "the daemon does not answer"
        time.sleep(0.05)  # another process has no event for us


def main() -> int:
    """Print on what the journeys run."""
    daemon = real()
    if daemon is None:
        print(
            "There is no Ollama here (OLLAMA_BIN, OLLAMA_HOST, 127.0.0.1:11434): the journeys run on the fake daemon "
            "only."
        )
    else:
        print(f"The journeys run on the fake daemon and on {daemon}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
