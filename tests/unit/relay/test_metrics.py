"""Every series of the data path after traffic that is known, read from a real relay's registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio

from app.metrics import ALARMING, OUTCOMES
from app.relay.proxy.asker import Asker
from app.supervisor.fleet.waiters import WaitOutcome
from app.table import PublicModel, Target, Wildcard
from backends.endpoint import Timeouts, UsageMode
from tests.fakes import wire
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import Rig, backend, models, running

HASTY = Timeouts(connect_s=2, first_byte_s=0.2, between_events_s=0.2)
DURATION = "gen_ai_server_request_duration_seconds"
FIRST = "gen_ai_server_time_to_first_token_seconds"
PER_TOKEN = "gen_ai_server_time_per_output_token_seconds"
TOKENS = "gen_ai_client_token_usage"
OVERHEAD = "modelport_overhead_seconds"
IN_FLIGHT = "modelport_in_flight"
ATTEMPTS = "modelport_attempts_total"
ERRORS = "modelport_stream_errors_total"
LEFT = "modelport_client_disconnects_total"
REFUSED = "modelport_rejected_requests_total"
FALLBACKS = "modelport_fallbacks_total"
CHAT = {
    "gen_ai_operation_name": "chat",
    "gen_ai_request_model": "fake",
    "modelport_backend": "engine",
}
WORDS = len(wire.WORDS)


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine(("fake", "m", "anything")) as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    served = {"fake": PublicModel("fake", (Target("engine", "fake"),), ("spare",)), **models("spare", backend="second")}
    backends = {"engine": backend(engine.url), "second": backend(None, "second")}
    async with running(backends, served) as gateway:
        yield gateway


async def settled(rig: Rig) -> None:
    """The client's last byte comes a moment before the request is over."""
    await rig.fleet.until(lambda: rig.leases.total() == 0)


def count(rig: Rig, name: str, labels: Mapping[str, str] = CHAT, **more: str) -> float:
    return rig.sample(f"{name}_count", **{**labels, **more})


def total(rig: Rig, name: str, labels: Mapping[str, str] = CHAT, **more: str) -> float:
    return rig.sample(f"{name}_sum", **{**labels, **more})


def tokens(rig: Rig) -> tuple[float, float]:
    """Input and output tokens of all requests."""
    kinds = ("input", "output")
    return tuple(total(rig, TOKENS, {}, gen_ai_token_type=kind) for kind in kinds)  # type: ignore[return-value]


def labels(rig: Rig) -> set[str]:
    """All values of all labels but `le`."""
    return {value for sample in rig.samples() for name, value in sample.labels.items() if name != "le"}


async def test_a_whole_answer_is_counted_once_in_each_of_its_series(rig: Rig) -> None:
    for _ in range(3):
        assert (await rig.ask(body=chat())).status == 200
    await settled(rig)

    assert count(rig, DURATION, error_type="") == 3
    assert 0 < total(rig, OVERHEAD) < total(rig, DURATION)
    assert count(rig, OVERHEAD) == 3
    assert tokens(rig) == (3 * 12, 3 * WORDS)
    assert rig.sample(ATTEMPTS, modelport_backend="engine", outcome="ok") == 3
    assert (count(rig, FIRST), count(rig, PER_TOKEN)) == (0, 0)
    assert rig.sample(IN_FLIGHT) == rig.sample(ERRORS) == rig.sample(LEFT) == 0


async def test_a_stream_also_has_its_first_token_and_the_time_between_tokens(rig: Rig, engine: FakeEngine) -> None:
    engine.script("drip")

    assert (await rig.ask(body=chat(stream=True))).is_whole
    await settled(rig)

    assert (count(rig, DURATION), count(rig, FIRST), count(rig, PER_TOKEN)) == (1, 1, 1)
    spent = total(rig, FIRST) + total(rig, PER_TOKEN) * (WORDS - 1)
    assert spent == pytest.approx(total(rig, DURATION), rel=1e-6)
    assert tokens(rig) == (12, WORDS)


@pytest.mark.parametrize(
    ("scenario", "usage", "expected"),
    [
        ("ok", UsageMode.ASK, (12, WORDS)),
        ("usage_everywhere", UsageMode.ASK, (12, WORDS)),
        ("llama_cpp", UsageMode.TIMINGS, (12, WORDS)),
        ("usage_never", UsageMode.ASK, (0, WORDS)),
        ("error_event", UsageMode.ASK, (0, 3)),
        ("fin_mid_stream", UsageMode.ASK, (0, 3)),
    ],
)
async def test_a_streams_tokens_are_the_engines_count_or_ours(
    rig: Rig, engine: FakeEngine, scenario: str, usage: UsageMode, expected: tuple[float, float]
) -> None:
    await rig.published(backends={"engine": backend(engine.url, usage=usage)})
    engine.script(scenario)

    await rig.ask(body=chat(stream=True))
    await settled(rig)

    assert tokens(rig) == expected


async def test_embeddings_and_completions_have_an_operation_of_their_own(rig: Rig) -> None:
    await rig.ask("/v1/embeddings", {"model": "fake", "input": ["a", "b"]})
    await rig.ask("/v1/completions", {"model": "fake", "prompt": "a"})
    await settled(rig)

    for operation in ("embeddings", "text_completion"):
        assert count(rig, DURATION, {**CHAT, "gen_ai_operation_name": operation}) == 1
    assert count(rig, DURATION) == 0
    assert tokens(rig) == (8 + 12, WORDS)


def broken(*_: object) -> None:
    raise RuntimeError("a mistake of our own")


@pytest.mark.parametrize(("place", "is_stream"), [("_exchange", False), ("_exchange", True), ("_learn", True)])
async def test_a_mistake_of_our_own_is_a_failure_of_the_model_that_was_asked(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, place: str, is_stream: bool
) -> None:
    """Nothing else can make the relay raise what it does not know: it is broken on purpose, before its engine is asked
    and after the client has got the whole stream.
    """
    monkeypatch.setattr(Asker, place, broken)

    await rig.ask(body=chat(stream=is_stream))
    await settled(rig)

    assert count(rig, DURATION, error_type="internal_error") == 1
    assert count(rig, DURATION, error_type="") == 0
    assert rig.sample(ERRORS, **CHAT) == (place == "_learn")
    assert rig.sample(IN_FLIGHT) == 0


FAILURES = {
    "accept_then_fin": "engine_disconnected",
    "garbage": "engine_broken_answer",
    "status_500_vllm": "engine_failed",
    "never_answers": "engine_timeout",
    "status_400_openai": "engine_rejected",
    "status_404_vllm": "engine_rejected",
}


@pytest.mark.parametrize("scenario", FAILURES)
async def test_a_failure_is_counted_under_its_kind_and_never_under_the_engines_words(
    rig: Rig, engine: FakeEngine, scenario: str
) -> None:
    if scenario == "never_answers":
        await rig.published(backends={"engine": backend(engine.url, timeouts=HASTY)})
    engine.script(scenario)

    reply = await rig.ask(body=chat())
    await settled(rig)

    kind = FAILURES[scenario]
    assert reply.status >= 400
    assert count(rig, DURATION, error_type=kind) == count(rig, DURATION) == 1
    assert rig.sample(ATTEMPTS, outcome=kind) == rig.sample(ATTEMPTS) == 1
    assert rig.sample(IN_FLIGHT) == 0
    assert tokens(rig) == (0, 0)
    assert "engine_code" not in labels(rig)


async def test_a_refusal_that_moves_on_is_an_attempt_and_the_request_counts_where_it_was_answered(
    rig: Rig, engine: FakeEngine
) -> None:
    async with FakeEngine(("spare",)) as other:
        await rig.published(backends={"engine": backend(engine.url), "second": backend(other.url, "second")})
        engine.script("status_503_empty")

        assert (await rig.ask(body=chat())).status == 200
        await settled(rig)

    assert rig.sample(ATTEMPTS, modelport_backend="engine", outcome="engine_not_ready") == 1
    assert rig.sample(ATTEMPTS, modelport_backend="second", outcome="ok") == 1
    given_up = {"gen_ai_request_model": "fake", "modelport_backend": "engine", "reason": "engine_not_ready"}
    assert rig.sample(FALLBACKS, **given_up) == rig.sample(FALLBACKS) == 1
    assert count(rig, DURATION, {"modelport_backend": "second"}, gen_ai_request_model="fake", error_type="") == 1
    assert count(rig, DURATION) == 0
    assert rig.sample(IN_FLIGHT) == 0


async def test_the_last_target_is_given_up_for_nobody(rig: Rig, engine: FakeEngine) -> None:
    """`spare` has no engine: it was tried, and so was the first one before it."""
    engine.script("status_503_empty")

    assert (await rig.ask(body=chat())).status == 503
    await settled(rig)

    assert rig.sample(FALLBACKS, modelport_backend="engine") == rig.sample(FALLBACKS) == 1
    assert rig.sample(ATTEMPTS) == 2


async def test_an_answer_at_the_first_target_is_no_fallback(rig: Rig) -> None:
    await rig.ask(body=chat())
    await rig.ask(body=chat("spare"))
    await settled(rig)

    assert rig.sample(FALLBACKS) == 0


CONVERSATION = [{"role": "user", "content": "hi"}]
REFUSALS: dict[str, tuple[str, object, dict[str, str]]] = {
    "model_not_found": ("/v1/chat/completions", {"model": "no", "messages": CONVERSATION}, {}),
    "missing_field": ("/v1/chat/completions", {"model": "fake"}, {}),
    "invalid_json": ("/v1/chat/completions", b"{", {}),
    "route_not_found": ("/v1/nowhere", {}, {}),
    "foreign_host": ("/v1/chat/completions", {"model": "fake"}, {"host": "evil.example"}),
    "method_not_allowed": ("/v1/models", {"model": "fake"}, {}),
}


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_request_that_no_backend_was_chosen_for_is_counted_by_its_code(rig: Rig, code: str) -> None:
    path, body, headers = REFUSALS[code]

    await rig.ask(path, body, headers=headers)

    assert rig.sample(REFUSED, reason=code) == rig.sample(REFUSED) == 1
    assert rig.sample(f"{DURATION}_count") == rig.sample(ATTEMPTS) == 0


async def test_what_is_no_request_is_counted_too(rig: Rig) -> None:
    async with Client(rig.url) as client:
        client.send(b"hello\r\n\r\n")
        await client.reader.read()

    assert rig.sample(REFUSED, reason="invalid_http") == rig.sample(REFUSED) == 1


async def test_a_stream_that_breaks_is_counted_as_such(rig: Rig, engine: FakeEngine) -> None:
    engine.script("error_event")

    assert (await rig.ask(body=chat(stream=True))).is_cut
    await settled(rig)

    assert rig.sample(ERRORS, **CHAT) == 1
    assert count(rig, DURATION, error_type="engine_failed") == 1
    assert rig.sample(ATTEMPTS, outcome="engine_failed") == 1


@pytest.mark.parametrize(("scenario", "stream"), [("endless_drip", True), ("never_answers", False)])
async def test_a_client_that_leaves_is_counted_and_no_longer_in_flight(
    rig: Rig, engine: FakeEngine, scenario: str, stream: bool
) -> None:
    engine.script(scenario)
    async with asyncio.timeout(20), Client(rig.url) as client:
        body = b'{"model":"fake","messages":[{"role":"user","content":"hi"}],"stream":%b}' % (
            b"true" if stream else b"false"
        )
        client.send(request("POST", "/v1/chat/completions", body))
        record = await engine.arrived()
        if stream:
            for _ in range(4):
                await client.reader.readuntil(b"\n\n")
        assert rig.sample(IN_FLIGHT, **CHAT) == 1
    await asyncio.wait_for(record.closed_by_peer.wait(), 20)
    await settled(rig)

    assert rig.sample(LEFT, **CHAT) == 1
    assert rig.sample(IN_FLIGHT) == 0
    assert rig.sample(ERRORS) == 0
    assert (tokens(rig)[1] >= 3) is stream


async def test_waiting_for_an_engine_is_not_the_gateways_own_part(rig: Rig, engine: FakeEngine) -> None:
    await rig.published(backends={"engine": backend(None, can_start=True)})
    asking = asyncio.create_task(rig.ask(body=chat()))
    await rig.fleet.until(lambda: "engine" in rig.fleet.asked)
    loading = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.1, loading.set_result, None)
    await loading
    rig.publish(backends={"engine": backend(engine.url)})
    rig.fleet.asked["engine"].set_result(WaitOutcome(is_ready=True))

    assert (await asking).status == 200
    await settled(rig)

    assert count(rig, OVERHEAD) == 1
    assert total(rig, OVERHEAD) <= total(rig, DURATION) - 0.09


async def test_labels_come_from_the_configuration_whatever_clients_type(rig: Rig, engine: FakeEngine) -> None:
    await rig.published(aliases={"alias-1": "fake"}, wildcards=(Wildcard("w/", "engine"),), default_model="fake")

    for name in ("alias-1", "w/m", "w/anything", "w/junk-1", "junk-2", "fake", ""):
        await rig.ask(body=chat(name))
    await rig.published(default_model=None)
    for name in ("junk-3", "x" * 1000):
        assert (await rig.ask(body=chat(name))).status == 404
    await settled(rig)

    known = {"chat", "fake", "w/*", "engine", "", "input", "output", "second"}
    known |= {"relay", "model_not_found", *OUTCOMES, *ALARMING}
    assert labels(rig) <= known
    assert count(rig, DURATION, gen_ai_request_model="w/*", error_type="") == 2
    assert count(rig, DURATION, gen_ai_request_model="fake") == 4
