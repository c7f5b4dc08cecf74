"""What a client sees when a part of a real vLLM dies or stops, how soon it is noticed, and what is left: nothing."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.journeys.gateway import until
from tests.live.engines import GONE_S, Live, backend, config, is_alive, shared_memory

LONG: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Tell a story."}],
    "max_tokens": 1900,
    "stream": True,
    "ignore_eos": True,
}


@pytest.fixture(scope="module")
def before() -> set[str]:
    """The shared memory that was there before any engine of ours."""
    return shared_memory()


@pytest.fixture(scope="module")
def gateway(before: set[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One for all deaths: each leaves it as it was. Hangs are noticed soon."""
    sections = backend("tiny", max_num_seqs="32", stall_timeout_s="10", timeouts="{between_events_s: 30}")
    with Live(tmp_path_factory.mktemp("deaths"), config(sections)) as program:
        program.ready("tiny")
        yield program


class Stream:
    """A client that reads in a thread and notes how it ended."""

    def __init__(self, url: str, max_tokens: int = 1900) -> None:
        self.received = b""
        self.is_cut = False
        self.ended_at = 0.0
        self._has_text = threading.Event()
        self._url = url
        self._body = {**LONG, "max_tokens": max_tokens}
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        assert self._has_text.wait(GONE_S), self.received

    def _read(self) -> None:
        try:
            with httpx.stream("POST", f"{self._url}/v1/chat/completions", json=self._body, timeout=180) as answer:
                for piece in answer.iter_raw():
                    self.received += piece
                    if self.received.count(b"data: ") > 3:
                        self._has_text.set()
        except httpx.TransportError:
            self.is_cut = True
        self.ended_at = time.monotonic()

    def close(self) -> None:
        """Wait for its end."""
        self._thread.join(180)
        assert not self._thread.is_alive()

    @property
    def error(self) -> str | None:
        """The code of the error event that it ended with."""
        last = self.received.rstrip().rpartition(b"data: ")[2]
        if b'"error"' not in last:
            return None
        code = json.loads(last)["error"]["code"]
        return str(code)


def died(gateway: Live, who: str, end: Callable[[], None], before: set[str]) -> Stream:
    """Let it die under a stream; returns the stream when the next start serves and nothing of the last is left."""
    old, group = gateway.ready("tiny"), gateway.group("tiny")
    family = [*group.pids, group.guard]
    stream = Stream(gateway.url)
    began = time.monotonic()
    end()
    until(lambda: bool(gateway.backend("tiny")["state"] != "ready"), GONE_S * 2)
    noticed_s = time.monotonic() - began
    stream.close()
    gateway.ready("tiny", old["generation"] + 1)
    ready_s = time.monotonic() - began
    until(lambda: not any(map(is_alive, family)), GONE_S)
    left = shared_memory() - before - _mapped(gateway)
    print(
        f"\n{who}: stream ended after {stream.ended_at - began:.1f} s ({stream.error}), "
        f"noticed after {noticed_s:.1f} s, ready again after {ready_s:.1f} s, shared memory left {len(left)}"
    )
    assert left == set()
    assert stream.is_cut
    assert b"[DONE]" not in stream.received
    assert stream.error is not None
    assert gateway.post("/v1/chat/completions", {**LONG, "stream": False, "max_tokens": 2}).status_code == 200
    return stream


def _mapped(gateway: Live) -> set[str]:
    """What the engine that runs now has; its semaphores are known to nobody but its tracker."""
    started = Path(f"/proc/{gateway.backend('tiny')['pid']}").stat().st_mtime
    return {name for name in shared_memory() if Path("/dev/shm", name).stat().st_mtime >= started}


def test_a_killed_server(gateway: Live, before: set[str]) -> None:
    group = gateway.group("tiny")

    died(gateway, "SIGKILL of the API server", lambda: group.kill(group.server), before)


@pytest.mark.full
def test_a_killed_core(gateway: Live, before: set[str]) -> None:
    group = gateway.group("tiny")

    died(gateway, "SIGKILL of EngineCore", lambda: group.kill(*group.named("VLLM::EngineCore")), before)


@pytest.mark.full
def test_a_killed_worker(gateway: Live, before: set[str]) -> None:
    group = gateway.group("tiny")

    died(gateway, "SIGKILL of the worker", lambda: group.kill(*group.named("VLLM::Worker")), before)


@pytest.mark.full
def test_a_killed_worker_of_two(before: set[str], tmp_path: Path) -> None:
    """The other one waits for it, and vLLM is silent for a while before it says so."""
    with Live(tmp_path, config(backend("tiny", tensor_parallel_size="2"))) as gateway:
        gateway.ready("tiny")
        group = gateway.group("tiny")
        worker = group.named("VLLM::Worker_TP")[1]

        died(gateway, "SIGKILL of one worker of two", lambda: group.kill(worker), before)


@pytest.mark.full
def test_a_killed_guard(gateway: Live, before: set[str]) -> None:
    group = gateway.group("tiny")

    died(gateway, "SIGKILL of the guard", lambda: group.kill(group.guard), before)


@pytest.mark.full
def test_a_stopped_server(gateway: Live, before: set[str]) -> None:
    group = gateway.group("tiny")

    died(gateway, "SIGSTOP of the API server", lambda: group.kill(group.server, number=signal.SIGSTOP), before)


@pytest.mark.full
def test_a_stopped_core(gateway: Live, before: set[str]) -> None:
    group = gateway.group("tiny")
    (core,) = group.named("VLLM::EngineCore")

    died(gateway, "SIGSTOP of EngineCore", lambda: group.kill(core, number=signal.SIGSTOP), before)


def test_twenty_streams_end_well_when_everything_is_told_to_end_at_once(gateway: Live, before: set[str]) -> None:
    """As systemd does it: TERM to the supervisor, its relays, the guards and the engines' processes together."""
    group = gateway.group("tiny")
    family = [*group.pids, group.guard]
    streams = [Stream(gateway.url, max_tokens=200) for _ in range(20)]
    began = time.monotonic()

    gateway.process.terminate()
    group.kill(group.guard, group.server, number=signal.SIGTERM)
    for stream in streams:
        stream.close()

    assert gateway.process.wait(GONE_S) == 0
    print(f"\nTERM under 20 streams: {sum(stream.is_cut for stream in streams)} cut, {time.monotonic() - began:.1f} s")
    assert [stream.error for stream in streams if stream.is_cut or b"[DONE]" not in stream.received] == []
    assert not any(map(is_alive, family))
    assert shared_memory() <= before


def test_a_killed_supervisor_leaves_nothing(before: set[str], tmp_path: Path) -> None:
    with Live(tmp_path, config(backend("tiny"))) as gateway:
        gateway.ready("tiny")
        group = gateway.group("tiny")
        family = [*group.pids, group.guard]
        stream = Stream(gateway.url)
        began = time.monotonic()

        gateway.process.kill()
        stream.close()

        until(lambda: not any(map(is_alive, family)), GONE_S)
        print(f"\nSIGKILL of the supervisor: all of vLLM gone after {time.monotonic() - began:.1f} s")
        assert stream.is_cut
        assert b"[DONE]" not in stream.received
        assert shared_memory() <= before
