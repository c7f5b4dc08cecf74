"""What a client sees when a part of a real vLLM dies or stops, how soon it is noticed, and what is left: nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.gateway import until
from tests.live.engines import GONE_S, Live, Record, backend, config, is_alive, shared_memory
from tests.live.stream import Stream

SHORT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def before() -> set[str]:
    """The shared memory that was there before our engines."""
    return shared_memory()


@pytest.fixture(scope="module")
def gateway(before: set[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One for all deaths: each leaves it as it was. Hangs are noticed soon."""
    sections = backend("tiny", max_num_seqs="32", stall_timeout_s="10", timeouts="{between_events_s: 30}")
    with Live(tmp_path_factory.mktemp("deaths"), config(sections)) as program:
        program.ready("tiny")
        yield program


def died(gateway: Live, record: Record, end: Callable[[], None], before: set[str]) -> None:
    """Let it die under a stream: the client gets an error, the next start serves, nothing of the last is left."""
    old, group = gateway.ready("tiny"), gateway.group("tiny")
    family = [*group.pids, group.guard]
    stream = Stream(gateway.url)
    began = time.monotonic()
    end()
    until(lambda: bool(gateway.backend("tiny")["state"] != "ready"), GONE_S * 2)
    record("noticed after", f"{time.monotonic() - began:.1f} s")
    reason = gateway.backend("tiny")["reason"]
    stream.wait()
    record("the client's stream", f"{stream.error} after {stream.ended_at - began:.1f} s, cut without [DONE]")
    gateway.ready("tiny", old["generation"] + 1)
    record("ready again after", f"{time.monotonic() - began:.1f} s")
    until(lambda: not any(map(is_alive, family)), GONE_S)
    left = shared_memory() - before - _mapped(gateway)
    record("left of it", f"0 of {len(family)} processes, {len(left)} files of shared memory")
    record("the reason given", reason)
    assert left == set()
    assert stream.is_cut
    assert b"[DONE]" not in stream.received
    assert stream.error is not None
    assert gateway.post("/v1/chat/completions", SHORT).status_code == 200


def _mapped(gateway: Live) -> set[str]:
    """What the engine that runs now has; its semaphores are known to nobody but its tracker."""
    started = Path(f"/proc/{gateway.backend('tiny')['pid']}").stat().st_mtime
    return {name for name in shared_memory() if Path("/dev/shm", name).stat().st_mtime >= started}


def test_a_killed_server(gateway: Live, before: set[str], record_property: Record) -> None:
    group = gateway.group("tiny")

    died(gateway, record_property, lambda: group.kill(group.server), before)


@pytest.mark.full
def test_a_killed_core(gateway: Live, before: set[str], record_property: Record) -> None:
    group = gateway.group("tiny")

    died(gateway, record_property, lambda: group.kill(*group.named("VLLM::EngineCore")), before)


@pytest.mark.full
def test_a_killed_worker(gateway: Live, before: set[str], record_property: Record) -> None:
    group = gateway.group("tiny")

    died(gateway, record_property, lambda: group.kill(*group.named("VLLM::Worker")), before)


@pytest.mark.full
def test_a_killed_worker_of_two(tmp_path: Path, record_property: Record) -> None:
    """The other one waits for it, and vLLM is silent for a while before it says so."""
    before = shared_memory()  # the other engine's, too
    with Live(tmp_path, config(backend("tiny", tensor_parallel_size="2"))) as gateway:
        gateway.ready("tiny")
        group = gateway.group("tiny")
        worker = group.named("VLLM::Worker_TP")[1]

        died(gateway, record_property, lambda: group.kill(worker), before)


@pytest.mark.full
def test_a_stopped_worker_of_two(tmp_path: Path, record_property: Record) -> None:
    """The other one spins while it waits for it: that looks like work, and gets more time, and not for ever."""
    before = shared_memory()
    with Live(tmp_path, config(backend("tiny", tensor_parallel_size="2", stall_timeout_s="4"))) as gateway:
        gateway.ready("tiny")
        assert gateway.post("/v1/chat/completions", SHORT).status_code == 200
        group = gateway.group("tiny")
        worker = group.named("VLLM::Worker_TP")[1]

        died(gateway, record_property, lambda: group.kill(worker, number=signal.SIGSTOP), before)


@pytest.mark.full
def test_a_killed_guard(gateway: Live, before: set[str], record_property: Record) -> None:
    group = gateway.group("tiny")

    died(gateway, record_property, lambda: group.kill(group.guard), before)


@pytest.mark.full
def test_a_stopped_server(gateway: Live, before: set[str], record_property: Record) -> None:
    group = gateway.group("tiny")

    died(gateway, record_property, lambda: group.kill(group.server, number=signal.SIGSTOP), before)


@pytest.mark.full
def test_a_stopped_core(gateway: Live, before: set[str], record_property: Record) -> None:
    group = gateway.group("tiny")
    (core,) = group.named("VLLM::EngineCore")

    died(gateway, record_property, lambda: group.kill(core, number=signal.SIGSTOP), before)


def test_twenty_streams_end_well_when_everything_is_told_to_end_at_once(
    gateway: Live, before: set[str], record_property: Record
) -> None:
    """As systemd does it: TERM to the supervisor, its relays, the guards and the engines' processes together."""
    group = gateway.group("tiny")
    family = [*group.pids, group.guard]
    streams = [Stream(gateway.url, max_tokens=200) for _ in range(20)]
    began = time.monotonic()

    gateway.process.terminate()
    group.kill(group.guard, group.server, number=signal.SIGTERM)
    for stream in streams:
        stream.wait()

    assert gateway.process.wait(GONE_S) == 0
    broken = [stream.error for stream in streams if not stream.is_whole]
    record_property("broken streams", f"{len(broken)} of {len(streams)}")
    record_property("everything ended after", f"{time.monotonic() - began:.1f} s")
    assert broken == []
    assert not any(map(is_alive, family))
    assert shared_memory() <= before


def test_a_killed_supervisor_leaves_nothing(tmp_path: Path, record_property: Record) -> None:
    before = shared_memory()
    with Live(tmp_path, config(backend("tiny"))) as gateway:
        gateway.ready("tiny")
        group = gateway.group("tiny")
        family = [*group.pids, group.guard]
        stream = Stream(gateway.url)
        began = time.monotonic()

        gateway.process.kill()
        stream.wait()

        until(lambda: not any(map(is_alive, family)), GONE_S)
        record_property("the client's stream", f"cut after {stream.ended_at - began:.1f} s")
        record_property("all of vLLM gone after", f"{time.monotonic() - began:.1f} s")
        assert stream.is_cut
        assert b"[DONE]" not in stream.received
        assert shared_memory() <= before
