"""A real Prometheus on loopback, with a configuration and a data folder of its own, and its questions.

    with Prometheus(folder, config) as prometheus:
        prometheus.until_scraped()
        assert prometheus.query("sum(modelport_in_flight)")[0].value == 3

Its program is Debian's (`apt-get install prometheus`), and `promtool` comes with it.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.rigs.program import Program

PATIENCE_S = 60.0
LISTENS = r'msg="Listening on" address=(\S+)'
READY = "Server is ready to receive web requests"

ScrapedSeries = Mapping[str, str]  # its labels, the name among them as `__name__`


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an instant vector: its labels, and its value now."""

    labels: ScrapedSeries
    value: float


@dataclass(frozen=True, slots=True)
class Curve:
    """One series of a range: its labels, and (seconds since 1970, value) where it has one."""

    labels: ScrapedSeries
    points: tuple[tuple[float, float], ...]


class Prometheus:
    """One `prometheus`, from its start to its end; paths in the text of its configuration count from `folder`."""

    def __init__(self, folder: Path, config: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._config = folder / "prometheus.yml"
        self._config.write_text(config)
        argv = [
            program("prometheus"),
            f"--config.file={self._config}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--web.listen-address=127.0.0.1:0",
            "--web.enable-lifecycle",
            "--storage.tsdb.retention.time=2h",
        ]
        self._program = Program(argv, cwd=folder, lines_of="stderr", ends_by=signal.SIGTERM)
        try:
            self.url = f"http://{self._program.line(LISTENS)[1]}"
            self._program.line(READY)
        except BaseException:
            self._program.close()
            raise
        self._client = httpx.Client(base_url=self.url, timeout=PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._client.close()
        self._program.close()

    def reload(self, config: str) -> None:
        """Go on with another configuration."""
        self._config.write_text(config)
        reply = self._client.post("/-/reload")
        assert reply.is_success, reply.text

    def ask(self, path: str, **parameters: str | float) -> Any:
        """The data of a response of its API, `path` below `/api/v1`; fails with Prometheus's own words."""
        reply = self._client.post(path, data=parameters) if parameters else self._client.get(path)
        body = reply.json()
        assert body["status"] == "success", f"{body['error']}: {parameters}"
        return body["data"]

    def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """The series of an instant vector (or the one of a scalar), now or at a time."""
        data = self.ask("/api/v1/query", query=expression, **({} if at is None else {"time": at}))
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        assert data["resultType"] == "vector", f"{expression} is a {data['resultType']}"
        return [Sample(each["metric"], float(each["value"][1])) for each in data["result"]]

    def query_range(self, expression: str, start: float, end: float, step_s: float) -> list[Curve]:
        """The series of an expression between two times."""
        data = self.ask("/api/v1/query_range", query=expression, start=start, end=end, step=step_s)
        return [
            Curve(each["metric"], tuple((float(at), float(value)) for at, value in each["values"]))
            for each in data["result"]
        ]

    def until(
        self,
        expression: str,
        is_so: Callable[[list[Sample]], object] = bool,
        patience_s: float = PATIENCE_S,
    ) -> list[Sample]:
        """Wait until the samples of an expression are so (there are any, unless said otherwise); returns them."""
        end = time.monotonic() + patience_s
        while True:
            samples = self.query(expression)
            if is_so(samples):
                return samples
            assert time.monotonic() < end, f"{expression} stays {samples}; targets: {self.troubles() or 'all up'}"
            time.sleep(0.1)

    def until_scraped(self, times: int = 1, patience_s: float = PATIENCE_S) -> None:
        """Wait until every target was scraped so many times more, with success at the last."""
        since = time.time()
        for _ in range(times):
            end = time.monotonic() + patience_s
            while not all(each["health"] == "up" and _scraped_at(each) > since for each in self.targets()):
                assert time.monotonic() < end, f"not scraped: {self.troubles()}"
                time.sleep(0.05)
            since = time.time()

    def targets(self) -> list[dict[str, Any]]:
        """Its active targets, as `/api/v1/targets` has them; at least one."""
        end = time.monotonic() + PATIENCE_S
        while not (targets := self.ask("/api/v1/targets")["activeTargets"]):
            assert time.monotonic() < end, "no target"
            time.sleep(0.05)
        return list(targets)

    def troubles(self) -> list[str]:
        """What it has to complain about its targets."""
        return [f"{each['scrapeUrl']}: {each['lastError']}" for each in self.targets() if each["health"] != "up"]

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or firing, as `/api/v1/alerts` has them."""
        return list(self.ask("/api/v1/alerts")["alerts"])

    def names(self) -> set[str]:
        """The name of every series that it has scraped."""
        return set(self.ask("/api/v1/label/__name__/values"))


def _scraped_at(target: Mapping[str, Any]) -> float:
    """When a target was last scraped, in seconds since 1970; long before where it never was."""
    return datetime.fromisoformat(target["lastScrape"]).timestamp()


def program(name: str) -> str:
    """Where one of Debian's programs is."""
    path = shutil.which(name)
    assert path is not None, (
        f"{name} is not installed (Debian, Ubuntu: apt-get install prometheus prometheus-alertmanager)"
    )
    return path


def promtool(*arguments: str | Path, given: str | None = None) -> str:
    """What promtool prints; fails with what it printed where it is not content."""
    argv = [program("promtool"), *map(str, arguments)]
    done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(argv)} ended with {done.returncode}:\n{printed}"
    return printed
