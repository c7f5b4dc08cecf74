"""Two real vLLM that are equal to the last byte, of which the one that writes is killed in the middle of a stream."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.journeys.continuing import Answer, ask, ready
from tests.journeys.gateway import until
from tests.live.engines import MODELS, START_S, Live, backend

pytestmark = pytest.mark.full

TOKENS = 60
CONFIG = f"""
server: {{drain_s: 5}}
backends:{backend("demo", "smollm2", max_model_len="1024", replicas="2")}
models:
  chat: {{backend: demo, continue_streams: true}}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    assert (MODELS / "smollm2").exists()
    with Live(tmp_path_factory.mktemp("continuing"), CONFIG) as gateway:
        assert gateway.url
        until(lambda: len(gateway.status()["health"]["backends"]) == 2, START_S)
        gateway.ready("demo")
        gateway.ready("demo#2")
        yield gateway


QUESTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Write a short story about a lighthouse.", {}),
    ("Repeat this ten times: 你好 🙂 é ü ñ 你好 🙂 …", {}),
    ("Write a poem about a lost key in four lines.", {"stop": ["\n\n\n\n", "no such text"]}),
)


async def asked(gateway: Live, *, kills: bool = False) -> list[Answer]:
    """The answers to all of them; with `kills` the engine that writes the first is killed once it has written some."""
    answers = [Answer() for _ in QUESTIONS]
    async with httpx.AsyncClient(base_url=gateway.url, timeout=300) as client:
        asking = [
            asyncio.create_task(ask(client, question, answer, max_tokens=TOKENS, **options))
            for answer, (question, options) in zip(answers, QUESTIONS, strict=True)
        ]
        if kills:
            await asyncio.to_thread(until, lambda: asking[0].done() or len(answers[0].text) > 20)
            row = await asyncio.to_thread(gateway.backend, answers[0].engines[0])
            os.kill(row["pid"], signal.SIGKILL)
        await asyncio.gather(*asking)
    return answers


async def test_streams_of_vllm_go_on_at_the_other_one(gateway: Live) -> None:
    await asyncio.to_thread(ready, gateway)
    undisturbed = await asked(gateway)
    disturbed = await asked(gateway, kills=True)

    assert [answer.error for answer in disturbed] == [None] * len(QUESTIONS)
    assert disturbed[0].seam is not None
    for before, after in zip(undisturbed, disturbed, strict=True):
        assert after.text[: after.seam or 20] == before.text[: after.seam or 20]
        assert "\ufffd" not in after.text
        assert (len(after.ids), after.usage) == (1, before.usage)
        assert len(set(after.engines)) == len(after.engines)
