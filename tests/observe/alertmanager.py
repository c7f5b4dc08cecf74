"""A real Alertmanager on loopback, and a receiver that hears what it sends.

Its program is Debian's (`apt-get install prometheus-alertmanager`), and `amtool` comes with it.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.observe.prometheus import LISTENS, PATIENCE_S, program
from tests.rigs.program import Program


class Alertmanager:
    """One `prometheus-alertmanager`, from its start to its end."""

    def __init__(self, folder: Path, config: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "alertmanager.yml"
        path.write_text(config)
        argv = [
            program("prometheus-alertmanager"),
            f"--config.file={path}",
            f"--storage.path={folder / 'data'}",
            "--web.listen-address=127.0.0.1:0",
            "--cluster.listen-address=",
        ]
        self._program = Program(argv, lines_of="stderr", ends_by=signal.SIGTERM)
        try:
            self.address = self._program.line(LISTENS)[1]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._program.close()

    def alerts(self) -> dict[str, dict[str, Any]]:
        """What it has been told, by the alerts' names, as `/api/v2/alerts` has it."""
        return {each["labels"]["alertname"]: each for each in self._alerts()}

    def _alerts(self) -> list[dict[str, Any]]:
        return list(httpx.get(f"http://{self.address}/api/v2/alerts", timeout=PATIENCE_S).json())

    def tell(self, *alerts: Mapping[str, str]) -> None:
        """Tell it that these fire, each by its labels, for the next hour."""
        ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        body = [{"labels": dict(each), "endsAt": ends} for each in alerts]
        httpx.post(f"http://{self.address}/api/v2/alerts", json=body, timeout=PATIENCE_S).raise_for_status()

    def in_state(self, state: str) -> list[dict[str, str]]:
        """The labels of the alerts that are `active` or `suppressed`."""
        return [each["labels"] for each in self._alerts() if each["status"]["state"] == state]

    def states(self) -> dict[str, str]:
        """`active`, or `suppressed` because of another alert, by the alerts' names."""
        return {name: each["status"]["state"] for name, each in self.alerts().items()}

    def until(self, is_so: Callable[[dict[str, str]], object]) -> dict[str, str]:
        """Wait until the states are so."""
        end = time.monotonic() + PATIENCE_S
        while not is_so(states := self.states()):
            assert time.monotonic() < end, f"it stays {states}"
            time.sleep(0.1)
        return states


class Receiver:
    """Whom Alertmanager tells, by a webhook."""

    def __init__(self) -> None:
        messages: queue.Queue[dict[str, Any]] = queue.Queue()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                messages.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """It says nothing."""

        self._messages = messages
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def heard_of(self, alert: str) -> dict[str, Any]:
        """The next message that this alert fires."""
        while True:
            message = self._messages.get(timeout=PATIENCE_S)
            if message["groupLabels"].get("alertname") == alert and message["status"] == "firing":
                return message


def tool(name: str, *arguments: str) -> str:
    """What one of Debian's programs prints; fails with that where it is not content."""
    done = subprocess.run([program(name), *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
