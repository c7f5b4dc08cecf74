"""The fake daemon responds as a real one was recorded: the same members in the same order, the same texts."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.ollama import BUSY, FakeOllama, Fault
from tests.rigs.raw_client import Client, Reply, ask, request
from tests.rigs.transcripts import Transcript, transcripts

# Not done by the fake daemon (its docstring says so), or several at a time (they have tests of their own).
ELSEWHERE = re.compile(r"14[0-4]_|220_|221_|260_|262_|272_|161_|270_|271_")
# What is different at each telling: names of answers, times, durations, digests of what was made.
_VARIES = {
    "id": "ID",
    "created": 0,
    "created_at": "",
    "modified_at": "",
    "expires_at": "",
    "digest": "",
    "size": 0,
    "total_duration": 0,
    "load_duration": 0,
    "prompt_eval_duration": 0,
    "eval_duration": 0,
    "context": None,
}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_GGUF = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Members that the fake daemon leaves out (token ids), or the recording (the Modelfile, long).
_LEFT_OUT = {"context", "modelfile"}


def told(value: Any) -> Any:
    """A JSON value without what varies, its members as a list, so that their order counts."""
    if isinstance(value, dict):
        pairs = [(name, _VARIES[name] if name in _VARIES and each else told(each)) for name, each in value.items()]
        return [pair for pair in pairs if pair[0] not in _LEFT_OUT]
    if isinstance(value, list):
        return [told(each) for each in value]
    return _DIGEST.sub("sha256", value) if isinstance(value, str) and not value.startswith("digest mismatch") else value


def objects(text: str) -> list[Any]:
    """Every line of an answer."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.strip()]
    return [told(json.loads(line)) if line.startswith("{") else line for line in lines]


async def replayed(daemon: FakeOllama, one: Transcript) -> Reply:
    headers = dict(one.headers)
    return await ask(daemon.url, one.method, one.path, one.body.encode(), {"host": "127.0.0.1", **headers})


@pytest.fixture
async def daemon() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as running:
        running.store.blobs[_GGUF] = b"GGUF and weights"
        yield running


async def prepare(daemon: FakeOllama, one: Transcript) -> None:
    """What the daemon was in when that was recorded."""
    name = one.name
    if name in ("013_ps_loaded", "122_ps_after_extra", "288_ps_forever", "181_ps_ctx256", "175_ps_ctx512"):
        sizes = {"181_ps_ctx256": 256, "175_ps_ctx512": 512}
        model = "mymodel" if name == "175_ps_ctx512" else "smollm2:135m"
        daemon.store.loaded.clear()
        options = {"num_ctx": sizes[name]} if name == "181_ps_ctx256" else {}
        body = {"model": model, "messages": [], "options": options}
        await ask(daemon.url, "POST", "/api/chat", body, {"host": "127.0.0.1"})
    if name == "002_root_head":
        daemon.store.loaded.clear()
    if name in ("230_chat_stream_runner_killed", "232_v1_stream_runner_killed", "236_v1_completions_stream_killed"):
        daemon.script(Fault("line", after=len(one.pieces) - 1))
    if name == "234_v1_nostream_runner_killed":
        daemon.script(Fault("line"))


async def test_the_same_requests_have_the_same_answers_in_the_order_of_the_recording(daemon: FakeOllama) -> None:
    seen = 0
    for one in transcripts().values():
        if ELSEWHERE.match(one.name):
            continue
        await prepare(daemon, one)

        reply = await replayed(daemon, one)

        assert reply.status == one.status, one.name
        assert reply.headers.get("content-type", "").partition(";")[0] == one.type.partition(";")[0], one.name
        assert objects(reply.body.decode()) == objects(one.answer), one.name
        assert reply.headers.get("allow", one.allow) == one.allow, one.name
        seen += 1
    assert seen > 110


# -- what a recording of single exchanges does not show


HI = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "Say hi."}], "stream": False}
LOCAL = {"host": "127.0.0.1"}


async def test_first_requests_share_one_load_and_nothing_comes_meanwhile(daemon: FakeOllama) -> None:
    """220, 221: `/api/ps` is empty and `/api/version` answers while the model loads."""
    daemon.load_s = 0.3
    asking = [asyncio.create_task(ask(daemon.url, "POST", "/api/chat", HI, LOCAL)) for _ in range(3)]
    await daemon.until(lambda: len(daemon.requests) == 3)

    loading = await ask(daemon.url, "GET", "/api/ps", headers=LOCAL)
    version = await ask(daemon.url, "GET", "/api/version", headers=LOCAL)

    assert (loading.json, version.json) == ({"models": []}, {"version": "0.33.0-rc2"})
    replies = await asyncio.gather(*asking)
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert daemon.loads == [("smollm2:135m", 4096)]
    assert max(reply.json["load_duration"] for reply in replies) >= 300_000_000


async def test_a_cold_daemon_with_a_full_queue_refuses_and_a_warm_one_lets_wait(daemon: FakeOllama) -> None:
    """262: of eight, two are served and six refused. 260: of twelve, all."""
    daemon.max_queue, daemon.load_s = 1, 0.3
    cold = await asyncio.gather(*(ask(daemon.url, "POST", "/api/chat", HI, LOCAL) for _ in range(8)))
    warm = await asyncio.gather(*(ask(daemon.url, "POST", "/api/chat", HI, LOCAL) for _ in range(12)))

    assert sorted(reply.status for reply in cold) == [200] * 2 + [503] * 6
    refused = next(reply for reply in cold if reply.status == 503)
    assert refused.json == {"error": BUSY} == transcripts()["262_cold_queue_full_0"].objects[0]
    assert "retry-after" not in refused.headers
    assert [reply.status for reply in warm] == [200] * 12
    assert daemon.most_running == 1


async def test_another_context_loads_the_model_anew(daemon: FakeOllama) -> None:
    """289, 290."""
    for num_ctx in (4096, 1024, 1024, 4096):
        await ask(daemon.url, "POST", "/api/chat", {**HI, "options": {"num_ctx": num_ctx}}, LOCAL)

    assert daemon.loads == [("smollm2:135m", 4096), ("smollm2:135m", 1024), ("smollm2:135m", 4096)]


async def test_an_idle_model_leaves_the_memory(daemon: FakeOllama) -> None:
    await ask(daemon.url, "POST", "/api/chat", {**HI, "keep_alive": "1ms"}, LOCAL)

    async with asyncio.timeout(20):
        while (await ask(daemon.url, "GET", "/api/ps", headers=LOCAL)).json["models"]:
            pass


async def test_a_client_that_leaves_is_noticed_and_frees_its_slot(daemon: FakeOllama) -> None:
    """251."""
    daemon.hold = asyncio.Event()
    body = json.dumps({**HI, "stream": True}).encode()
    async with Client(daemon.url) as client:
        client.send(request("POST", "/api/chat", body, LOCAL))
        await daemon.until(lambda: daemon.running == 1)

    async with asyncio.timeout(20):
        await daemon.asked[0].cancelled.wait()
    daemon.hold.set()
    assert (await ask(daemon.url, "POST", "/api/chat", HI, LOCAL)).status == 200


@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_a_connection_can_end_in_the_middle(daemon: FakeOllama, how: str) -> None:
    daemon.script(Fault(how, after=1))

    reply = await ask(daemon.url, "POST", "/api/chat", {**HI, "stream": True}, LOCAL)

    assert reply.is_cut


async def test_lines_can_be_split_and_joined_over_writes(daemon: FakeOllama) -> None:
    body = {**HI, "stream": True, "options": {"temperature": 0, "num_predict": 8, "seed": 1}}
    plain = await ask(daemon.url, "POST", "/api/chat", body, LOCAL)
    daemon.cuts = (1, 200, 3)

    cut = await ask(daemon.url, "POST", "/api/chat", body, LOCAL)

    assert objects(cut.body.decode()) == objects(plain.body.decode())


async def test_what_it_received_is_known(daemon: FakeOllama) -> None:
    """281 to 286: `/v1` forces temperature and top_p, the daemon's own API does not."""
    v1 = {key: value for key, value in HI.items() if key != "stream"}
    await ask(daemon.url, "POST", "/v1/chat/completions", {**v1, "top_k": 3, "num_ctx": 9, "n": 4}, LOCAL)
    await ask(daemon.url, "POST", "/api/chat", HI, LOCAL)

    forced, own = (asked.options for asked in daemon.asked)
    assert (forced["temperature"], forced["top_p"], forced["top_k"]) == (1.0, 1.0, 40)
    assert (own["temperature"], own["top_p"]) == (0.7, 0.9)
    assert [asked.num_ctx for asked in daemon.asked] == [4096, 4096]
