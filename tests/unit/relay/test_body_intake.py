"""The worst bodies that fit: no step over them takes long or much memory, and all of them together are bounded."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable

import pytest

from app.dialects import json_members
from app.dialects.validation import media
from app.errors import Problem
from app.relay.http import json_body
from app.relay.http.body_intake import INLINE_BYTES, SMALL_BYTES, BodyIntake
from app.relay.planning.plan import OPERATIONS, plan
from app.relay.planning.reasoning_fields import with_both_names
from app.relay.routes.foreign_apis import CLIENT_APIS
from app.table import Limits
from tests.fakes.engine import FakeEngine
from tests.rigs.allocations import allocated
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import backend, models, running
from tests.unit.dialects.test_openai_request import table

MIB = 2**20
SIZE = 30 * MIB
# No step may hold the loop for longer; CPU time, so that other programs do not count.
STEP_S = 0.05
USER = b'{"role":"user","content":"hi"}'


def conversation(*messages: bytes) -> bytes:
    return b'{"model":"m","messages":[' + b",".join(messages) + b"]}"


def filled(piece: bytes, size: int = SIZE) -> bytes:
    return piece * (size // len(piece))


REFUSED = {
    "empty messages": (b'{"model":"m","messages":[{"reasoning":"a"},' + filled(b"{},") + b"{}]}", json_body.MAX_ITEMS),
    "numbers in a chat": (b'{"model":"m","messages":[' + filled(b"1,") + b"1]}", json_body.MAX_ITEMS),
    "members": (b'{"model":"m","x":{' + filled(b'"":1,') + b'"":1}}', json_body.MAX_TOKENS),
    "fields": (b'{"model":"m",' + filled(b'"a":1,') + b'"b":1}', json_body.MAX_TOKENS),
    "prompts": (b'{"model":"m","prompt":[' + filled(b'"",') + b'""]}', json_body.MAX_TOKENS),
    "lists of nothing": (b'{"model":"m","prompt":[' + filled(b"[],") + b"[]]}", json_body.MAX_TOKENS),
    "too many tokens": (b'{"model":"m","prompt":[' + filled(b"1,") + b"1]}", json_body.MAX_TOKENS),
    "brackets": (b'{"model":"m","x":' + filled(b"["), json_body.MAX_ITEMS),
}
TAKEN = {
    "a text": conversation(b'{"role":"user","content":"' + filled(b"a") + b'"}'),
    "a text of commas and brackets": conversation(b'{"role":"user","content":"' + filled(b"{[,") + b'"}'),
    "escapes": conversation(b'{"role":"user","content":"' + filled(rb"\ud83d\ude00") + b'"}'),
    "blanks": b'{"model":"m","messages":[' + filled(b" ") + USER + b"]}",
    "as many messages as may be": conversation(*[USER] * (json_body.MAX_ITEMS // 2 - 5)),
}


def slowest_step(data: bytes, most: int) -> float:
    steps, slowest = json_body.walk(data, most), 0.0
    while True:
        began = time.thread_time()
        is_over = next(steps, True)
        slowest = max(slowest, time.thread_time() - began)
        if is_over:
            return slowest


@pytest.mark.parametrize(("data", "most"), REFUSED.values(), ids=REFUSED)
def test_what_would_cost_too_much_is_refused_before_it_does(data: bytes, most: int) -> None:
    def work() -> None:
        with pytest.raises(Problem) as refusal:
            slowest_step(data, most)
        assert refusal.value.status == 400

    assert allocated(work) < 8 * MIB


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN)
def test_no_step_of_the_check_holds_the_loop(data: bytes) -> None:
    assert slowest_step(data, json_body.MAX_ITEMS) < STEP_S


TOKENS = b'{"model":"m","prompt":[' + filled(b"1,", 2 * json_body.MAX_TOKENS - 2000) + b"1]}"
STEPS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    **{
        name: (data, lambda data: plan(OPERATIONS["/v1/chat/completions"], data, table(m="vllm"), None))
        for name, data in TAKEN.items()
    },
    "tokens": (TOKENS, lambda data: plan(OPERATIONS["/v1/completions"], data, table(m="vllm"), None)),
    "inputs": (
        TOKENS.replace(b"prompt", b"input"),
        lambda data: plan(OPERATIONS["/v1/embeddings"], data, table(m="vllm"), None),
    ),
    "edit": (TAKEN["a text"], lambda data: json_members.edit(data, {"model": b'"n"'})),
    "thinking": (
        conversation(*[b'{"role":"assistant","content":"a","reasoning":"b"}'] * 30_000),
        with_both_names,
    ),
    "nothing to think": (conversation(b'{"reasoning":"a"}', *[b"{}"] * 99_000), with_both_names),
    "pictures": (b'{"x_url":[' + b"{}," * 99_000 + b"{}]}", lambda data: media.refused(data, ())),
    "pictures inside": (b'{"x_url":[' + b'{"":0},' * 49_000 + b"{}]}", lambda data: media.refused(data, ())),
    "Anthropic's": (
        b'{"model":"m","max_tokens":1,"messages":[' + b",".join([USER] * 49_000) + b"]}",
        lambda data: CLIENT_APIS["/v1/messages"].translate(data, "t"),
    ),
    "Ollama's": (conversation(*[USER] * 49_000), lambda data: CLIENT_APIS["/api/chat"].translate(data, "t")),
}


@pytest.mark.parametrize(("data", "step"), STEPS.values(), ids=STEPS)
def test_no_step_takes_more_memory_than_a_few_times_the_body(data: bytes, step: Callable[[bytes], object]) -> None:
    """Or than what as many items as may be take: a hundred bytes or two each."""
    assert allocated(lambda: step(data)) < max(2 * len(data), json_body.MAX_ITEMS * 400)


async def test_a_large_body_is_worked_on_in_a_thread_one_after_the_other() -> None:
    intake, here, busy = BodyIntake(), threading.get_ident(), []

    def call() -> int:
        busy.append(1)
        assert len(busy) == 1
        time.sleep(0)
        busy.pop()
        return threading.get_ident()

    async with asyncio.timeout(20):
        assert await intake.work(INLINE_BYTES, call) == here
        threads = await asyncio.gather(*(intake.work(INLINE_BYTES + 1, call) for _ in range(8)))
    assert here not in threads


async def test_all_bodies_together_are_bounded_and_small_ones_always_taken() -> None:
    limits = Limits(max_body_bytes=MIB, max_bodies_bytes=2 * MIB)
    large = json.dumps(chat("m", text="x" * (900 * 1024))).encode()
    async with FakeEngine(["m"]) as engine, running({"engine": backend(engine.url)}, models("m"), limits) as rig:
        engine.script("never_answers", "never_answers")
        async with asyncio.timeout(20), Client(rig.url) as first, Client(rig.url) as second:
            for client in (first, second):
                client.send(request("POST", "/v1/chat/completions", large))
            await engine.arrived(2)

            refused = await rig.ask(body=large)
            small = await rig.ask(body=chat("m", text="x" * (SMALL_BYTES - 1000)))

            assert (refused.status, refused.error["code"]) == (503, "too_many_bytes")
            assert "retry-after" in refused.headers
            assert small.status == 200
        async with asyncio.timeout(20):
            await rig.fleet.until(lambda: rig.leases.of("engine") == 0)  # they have left
            assert (await rig.ask(body=large)).status == 200


async def test_who_leaves_keeps_the_turn_until_the_thread_is_through() -> None:
    intake, has_begun, may_end = BodyIntake(), threading.Event(), threading.Event()

    def slow() -> None:
        has_begun.set()
        may_end.wait(10)

    first = asyncio.create_task(intake.work(INLINE_BYTES + 1, slow))
    await asyncio.to_thread(has_begun.wait, 10)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(intake.work(INLINE_BYTES + 1, may_end.is_set))
    await asyncio.wait({second}, timeout=0.2)
    may_end.set()

    assert await second
