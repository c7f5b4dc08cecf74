"""Three embedded engines that are equal to the last byte, of which the one that writes is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.journeys.continuing import CONFIG, Answer, ask, ready
from tests.journeys.gateway import Gateway, until

QUESTION = "Repeat this ten times: 你好 🙂 é ü ñ 你好 🙂 …"
TOKENS = 120


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("continuing"), CONFIG)
    try:
        ready(gateway)
        yield gateway
    finally:
        gateway.close()


async def asked(gateway: Gateway, *, kills: int = 0) -> tuple[Answer, list[str]]:
    """One answer, and the engines that were killed while each of them wrote it: the first, and the next ones."""
    answer, killed = Answer(), list[str]()
    async with httpx.AsyncClient(base_url=gateway.url, timeout=300) as client:
        asking = asyncio.create_task(ask(client, QUESTION, answer, max_tokens=TOKENS))
        for _ in range(kills):
            if await asyncio.to_thread(_writes, asking, answer, killed):
                killed.append(answer.engines[-1])
                before = await asyncio.to_thread(gateway.backend, killed[-1])
                os.kill(before["pid"], signal.SIGKILL)
        await asking
    return answer, killed


def _writes(asking: asyncio.Task[Answer], answer: Answer, killed: list[str]) -> bool:
    """Wait until an engine that lives has written some of it; False where the stream has ended."""

    def is_so() -> bool:
        written = len(answer.text) - (answer.seam or 0)
        return asking.done() or (bool(answer.engines) and answer.engines[-1] not in killed and written > 20)

    until(is_so)
    return not asking.done()


async def test_a_stream_whose_engine_is_killed_is_whole(gateway: Gateway) -> None:
    undisturbed, _ = await asked(gateway)
    answer, killed = await asked(gateway, kills=1)

    assert answer.error is None
    assert answer.seam is not None
    assert answer.text[: answer.seam] == undisturbed.text[: answer.seam]
    assert "\ufffd" not in answer.text
    assert (len(answer.ids), answer.usage, answer.finish) == (1, undisturbed.usage, undisturbed.finish)
    assert len(set(answer.engines)) == 2
    assert killed == answer.engines[:1]
    ready(gateway)


async def test_a_request_that_kills_its_engines_kills_two(gateway: Gateway) -> None:
    before = {row["name"]: row["pid"] for row in gateway.status()["health"]["backends"]}
    answer, killed = await asked(gateway, kills=3)

    assert answer.error is not None
    assert len(killed) == 2
    (spared,) = before.keys() - set(killed)
    assert (gateway.backend(spared)["state"], gateway.backend(spared)["pid"]) == ("ready", before[spared])
    ready(gateway)


def test_it_is_counted_and_in_the_log(gateway: Gateway) -> None:
    page = httpx.get(f"{gateway.url}/metrics").text

    assert 'modelport_continued_streams_total{gen_ai_request_model="chat",outcome="continued"} 1.0' in page
    assert 'modelport_continued_streams_total{gen_ai_request_model="chat",outcome="failed"} 1.0' in page
    log = (Path(gateway.state).parent / "log").read_text()
    assert "stream continued" in log
    assert "stream not continued" in log
