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


async def asked(gateway: Live, question: str, *, kills: bool = False, **options: Any) -> Answer:
    """One answer; with `kills` the engine that writes it is killed once it has written something."""
    answer = Answer()
    async with httpx.AsyncClient(base_url=gateway.url, timeout=300) as client:
        asking = asyncio.create_task(ask(client, question, answer, max_tokens=TOKENS, **options))
        if kills:
            await asyncio.to_thread(until, lambda: asking.done() or len(answer.text) > 20)
            row = await asyncio.to_thread(gateway.backend, answer.engines[0])
            os.kill(row["pid"], signal.SIGKILL)
        return await asking


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Write a short story about a lighthouse.", {}),
        ("Repeat this ten times: 你好 🙂 é ü ñ 你好 🙂 …", {}),
        ("Write a poem about a lost key in four lines.", {"stop": ["\n\n\n\n", "no such text"]}),
    ],
)
async def test_a_stream_of_vllm_goes_on_at_the_other_one(gateway: Live, question: str, options: dict[str, Any]) -> None:
    await asyncio.to_thread(ready, gateway)
    undisturbed = await asked(gateway, question, **options)
    answer = await asked(gateway, question, kills=True, **options)

    assert answer.error is None
    assert answer.seam is not None
    assert answer.text[: answer.seam] == undisturbed.text[: answer.seam]
    assert "\ufffd" not in answer.text
    assert (len(answer.ids), answer.usage, answer.finish) == (1, undisturbed.usage, undisturbed.finish)
    assert sorted(answer.engines) == ["demo", "demo#2"]
