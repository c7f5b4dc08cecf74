"""Who asks for a place at an engine, how urgent it is, and how long the client waits."""

from __future__ import annotations

import json

import msgspec
import pytest

from app.ipc import Claim
from app.relay.planning.claim import claim
from app.relay.planning.plan import OPERATIONS, RequestPlan, plan
from app.table import Key, PublicModel, Table, Target
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import chat
from tests.rigs.relay import backend, models, running

TABLE = Table(1, {"fake": PublicModel("fake", (Target("gpu", "fake"),))}, {}, (), {})
CHAT = OPERATIONS["/v1/chat/completions"]
HOLD_S = 10.0


def planned(key: Key | None = None, **fields: object) -> RequestPlan:
    return plan(CHAT, json.dumps(chat(**fields)).encode(), TABLE, key)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "tier", "expected"),
    [
        (None, None, Claim()),
        (None, "flex", Claim(is_batch=True)),
        (Key("office", "0" * 64), None, Claim("office")),
        (Key("office", "0" * 64), "flex", Claim("office", is_batch=True)),
        (Key("night", "0" * 64, is_batch=True), None, Claim("night", is_batch=True)),
        (Key("night", "0" * 64, is_batch=True), "priority", Claim("night", is_batch=True)),
        (Key("office", "0" * 64), "default", Claim("office")),
    ],
)
def test_a_request_may_make_itself_a_batch_and_none_is_more_than_its_key(
    key: Key | None, tier: str | None, expected: Claim
) -> None:
    fields = {"service_tier": tier} if tier is not None else {}

    assert claim(planned(key, **fields), {}, HOLD_S) == expected


@pytest.mark.parametrize(
    ("headers", "whole_s", "stream_s"),
    [
        ({}, None, None),
        ({"x-stainless-read-timeout": "600.0"}, 600.0, None),
        ({"x-stainless-read-timeout": "4.5"}, 4.5, 4.5),
        ({"x-stainless-timeout": "30"}, 30.0, None),
        ({"x-envoy-expected-rq-timeout-ms": "15000"}, 15.0, 15.0),
        ({"x-envoy-expected-rq-timeout-ms": "15000", "x-stainless-timeout": "2"}, 2.0, 2.0),
        ({"x-stainless-read-timeout": "None"}, None, None),
        ({"x-stainless-read-timeout": "0"}, None, None),
        ({"x-stainless-read-timeout": "-1"}, None, None),
        ({"x-stainless-read-timeout": "inf"}, None, None),
        ({"x-stainless-read-timeout": "nan"}, None, None),
        ({"x-stainless-read-timeout": "9" * 400}, None, None),
    ],
)
def test_a_client_waits_as_long_as_its_headers_say(
    headers: dict[str, str], whole_s: float | None, stream_s: float | None
) -> None:
    assert claim(planned(), headers, HOLD_S).within_s == whole_s
    assert claim(planned(stream=True), headers, HOLD_S).within_s == stream_s, "a stream says something after hold_s"


async def test_the_supervisor_is_told_who_asks() -> None:
    async with FakeEngine() as engine, running({"engine": backend(engine.url, is_limited=True)}, models("fake")) as rig:
        with pytest.raises(TimeoutError):
            await rig.ask(body=chat(service_tier="flex"), headers={"x-stainless-timeout": "7"}, within_s=0.5)
        await rig.fleet.until(lambda: rig.leases.total() == 0)

    assert rig.fleet.claims == [Claim(None, is_batch=True, within_s=7.0)]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(rig.fleet.claims[0]), type=Claim) == rig.fleet.claims[0]
