"""Several gateways over one file and one store, as processes: started, killed, stopped, started again.

    with running(folder, store=postgres.database(), keys=[{"name": "a", "sha256": digest(SECRET), "rpm": 600}]) as team:
        team.members[1].kill()
        team.members[1].start()
        team.wait_ready()
        [each for engine in team.engines for each in engine.requests()]

All engines serve the public name `paced`. Nothing here is asynchronous: from a coroutine, `asyncio.to_thread`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from tests.journeys.gateway import modelport, until
from tests.rigs.metered_engine import Metered
from tests.rigs.program import PATIENCE_S, Program

MODEL: Final = "paced"
# Below the ports that the kernel gives away by itself, so that a port is free again when its gateway comes back.
_PORTS: Final = range(20_000, 32_000)
Json = dict[str, Any]


class TeamEngine(Program):
    """One engine in a process of its own (tests/rigs/metered_engine.py). `options`: such as `"--first", "0.05"`."""

    def __init__(self, *options: str) -> None:
        super().__init__([sys.executable, "-m", "tests.rigs.metered_engine", *options])
        self.url = self.line(r"(http://\S+/v1)")[1]

    def requests(self, begin: int = 0) -> list[Metered]:
        """What it was asked, from the `begin`-th request on, in the order in which it came."""
        reply = httpx.get(f"{self.url.removesuffix('/v1')}/metered?from={begin}", timeout=60, trust_env=False)
        return [Metered(**each) for each in reply.json()["requests"]]


class TeamMember:
    """One gateway of a team: its port and its state folder stay the same over its starts."""

    def __init__(self, folder: Path, config: Path, env: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.config, self.state = folder, config, folder / "state"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.starts = 0
        self._env = dict(env or {})
        self._program: Program | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def program(self) -> Program:
        """The latest start."""
        assert self._program is not None, f"{self.name} was never started"
        return self._program

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return int(self.program.process.pid)

    @property
    def is_running(self) -> bool:
        return self._program is not None and self._program.process.poll() is None

    @property
    def log(self) -> str:
        """What it has logged, in all its starts."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("log-*")))

    def start(self, *options: str) -> None:
        """Start it, and return at once: `wait_ready` waits. `options`: of `modelport serve`."""
        assert not self.is_running, f"{self.name} runs"
        if self._program is not None:
            self._program.close()
        self.starts += 1
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MODELPORT_", "API_"))}
        argv = [*modelport(), "serve", "--config", str(self.config), "--state", str(self.state)]
        argv += ["--port", str(self.port), *options]
        self._program = Program(argv, kept | self._env, self.folder / f"log-{self.starts:03}")

    def wait_ready(self, patience_s: float = PATIENCE_S) -> None:
        """Until it serves, by its `/readyz`."""
        end = time.monotonic() + patience_s
        while not self.is_ready():
            assert self.is_running, f"{self.name} has ended: {self.log[-2000:]}"
            assert time.monotonic() < end, f"{self.name} is not ready: {self.log[-2000:]}"
            time.sleep(0.02)

    def is_ready(self) -> bool:
        """Whether its `/readyz` says 200."""
        return self.says("/readyz") == 200

    def is_listening(self) -> bool:
        """Whether a connection to its port is taken, answered or not."""
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def says(self, path: str) -> int:
        """The status of a public route; 0 where it does not answer."""
        try:
            return httpx.get(f"{self.url}{path}", timeout=5, trust_env=False).status_code
        except httpx.HTTPError:
            return 0

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end, and wait; its exit code. SIGTERM takes `drain_delay_s` first, SIGINT does not."""
        self.program.process.send_signal(number)
        return self.program.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """Kill the supervisor, as a machine's failure does; its relays and guards end by themselves."""
        self.program.process.kill()
        self.program.process.wait(PATIENCE_S)

    def relay_pids(self) -> list[int]:
        """Its relays."""
        return [int(pid) for pid in self.status()["relays"]["pids"]]

    def kill_relay(self, index: int = 0) -> int:
        """Kill one of its relays, which the supervisor replaces; its pid. Where one is being replaced, the next one."""
        ends = time.monotonic() + PATIENCE_S
        while not (pids := self.relay_pids()):
            assert time.monotonic() < ends, "no relay has come back"
            time.sleep(0.05)
        pid = pids[index % len(pids)]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return pid

    def request(self, method: str, path: str, body: object = None) -> httpx.Response:
        """The response of an admin route over the control socket."""
        socket_path = str(self.state / "control.sock")
        with httpx.Client(transport=httpx.HTTPTransport(uds=socket_path), timeout=60) as client:
            return client.request(method, f"http://admin{path}", json=body)

    def ask(self, path: str) -> Any:
        """What an admin route says."""
        return self.request("GET", path).json()

    def order(self, method: str, path: str, body: object = None) -> Any:
        """What an administrator's order came to; it must not fail."""
        reply = self.request(method, path, body)
        assert reply.is_success, reply.text
        return reply.json()

    def status(self) -> Any:
        """`/admin/status`."""
        return self.ask("/admin/status")

    def health(self) -> Any:
        """`/health`."""
        return self.ask("/health")

    def metrics(self) -> str:
        """The page of metrics."""
        return self.request("GET", "/metrics").text

    def close(self) -> None:
        """End it, whatever happened."""
        if self._program is not None:
            self._program.close()


class GatewayTeam:
    """`members`: the gateways, in their order; `engines`: those that all of them ask; `config`: the one file."""

    def __init__(self, members: Sequence[TeamMember], engines: Sequence[TeamEngine], config: Path) -> None:
        self.members, self.engines, self.config = members, engines, config

    @property
    def urls(self) -> list[str]:
        """Of the gateways, as clients call them."""
        return [member.url for member in self.members]

    def start(self) -> None:
        """All that do not run, at once."""
        for member in self.members:
            if not member.is_running:
                member.start()

    def wait_ready(self) -> None:
        """Until each of them serves."""
        for member in self.members:
            member.wait_ready()

    def requests(self) -> list[Metered]:
        """What all engines were asked, in the order in which it came."""
        return sorted((each for engine in self.engines for each in engine.requests()), key=lambda each: each.at)

    def until(self, is_so: Callable[[TeamMember], bool], patience_s: float = PATIENCE_S) -> None:
        """Wait until it is so at every gateway that runs."""
        until(lambda: all(is_so(member) for member in self.members if member.is_running), patience_s)


@contextlib.contextmanager
def running(
    folder: Path,
    *,
    gateways: int = 3,
    engines: int = 1,
    engine_options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    is_started: bool = True,
    **settings: Any,
) -> Iterator[GatewayTeam]:
    """A team whose gateways all serve. `settings`: of `team_config`; `is_started`: else nobody has been started yet."""
    with contextlib.ExitStack() as opened:
        doubles = [opened.enter_context(TeamEngine(*engine_options)) for _ in range(engines)]
        config = folder / "modelport.yaml"
        write_config(config, team_config([double.url for double in doubles], **settings))
        members = [TeamMember(folder / name, config, env) for name in _names(gateways)]
        for member in members:
            opened.callback(member.close)
        team = GatewayTeam(members, doubles, config)
        if is_started:
            team.start()
            team.wait_ready()
        yield team


def team_config(
    engine_urls: Sequence[str],
    *,
    store: object = None,
    keys: Sequence[Mapping[str, object]] = (),
    relays: int = 1,
    model: Mapping[str, object] | None = None,
    server: Mapping[str, object] | None = None,
    **more: Any,
) -> Json:
    """The file of a team. `store`: its URL, or its section; `model`, `server`: further settings of the public name and
    of the gateway; `more`: further sections."""
    names = [f"engine-{number}" for number in range(1, len(engine_urls) + 1)]
    config: Json = {
        "server": {"relays": relays, "drain_delay_s": 0.3, **(server or {})},
        "backends": {name: {"kind": "remote", "url": url} for name, url in zip(names, engine_urls, strict=True)},
        "models": {MODEL: {"targets": [{"backend": name, "model": "metered"} for name in names], **(model or {})}},
    }
    config |= {"store": store} if store is not None else {}
    config |= {"keys": [dict(key) for key in keys]} if keys else {}
    return config | more


def write_config(path: Path, config: Mapping[str, object]) -> None:
    """JSON is YAML, too."""
    path.write_text(json.dumps(config, indent=2))


def free_port() -> int:
    """A port of this machine that nobody listens on, and that the kernel does not give away by itself."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def _names(count: int) -> list[str]:
    return [chr(ord("a") + number) for number in range(count)]
