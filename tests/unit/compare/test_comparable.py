"""Models are compared under the same conditions, or it is said why they are not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.errors import Problem
from app.relay.compare.fitness import Room, context_reasons, most_tokens, surely_fits
from app.relay.compare.sampling import NEUTRAL, SampledModel, shared
from app.supervisor.fleet.waiters import WaitOutcome
from app.table import Limits, Rules
from backends.endpoint import ModelFacts
from tests.rigs.comparison import MESSAGES, comparing, failing, named_events, saying
from tests.rigs.raw_client import Client, request
from tests.rigs.relay import backend

ASK = json.dumps({"models": ["base", "tuned"], "messages": MESSAGES}).encode()


def model(name: str, *, is_local: bool = True, **rules: Any) -> SampledModel:
    return SampledModel(name, Rules(**rules), is_local)


# -- the sampling, by itself


def test_what_nobody_says_is_greedy_and_cuts_nothing_off() -> None:
    made = shared({}, [model("a"), model("b")], 5, 100)

    assert made.settings == {**NEUTRAL, "seed": 5, "max_tokens": 100}
    assert set(made.filled) == made.settings.keys()
    assert made.rules[0].overrides == made.rules[1].overrides == made.settings
    assert (made.reasons, made.notes) == ((), ())


def test_a_default_counts_only_where_all_names_have_it() -> None:
    same = {"temperature": 0.7, "top_p": 0.9}

    made = shared({}, [model("a", defaults=same), model("b", defaults={**same, "top_p": 0.8})], 5, 100)

    assert (made.settings["temperature"], made.settings["top_p"]) == (0.7, NEUTRAL["top_p"])


def test_what_the_client_says_comes_before_every_default() -> None:
    made = shared({"temperature": 1.5}, [model(each, defaults={"temperature": 0.7}) for each in "ab"], 5, 100)

    assert made.settings["temperature"] == 1.5
    assert "temperature" not in made.filled


def test_overrides_that_all_names_share_are_what_is_sent() -> None:
    made = shared({"temperature": 1.5}, [model(each, overrides={"temperature": 0.2}) for each in "ab"], 5, 100)

    assert made.settings["temperature"] == 0.2
    assert made.reasons == ()


def test_overrides_that_make_the_models_unlike_are_a_reason_and_are_kept() -> None:
    made = shared({}, [model("a", overrides={"top_k": 5, "typical_p": 0.5}), model("b")], 5, 100)

    assert made.reasons == (
        "the configuration overrides top_k: 5 for a, 0 for b",
        "the configuration overrides typical_p: 0.5 for a, the engine's own for b",
    )
    assert "top_k" not in made.settings
    assert (made.rules[0].overrides["top_k"], made.rules[1].overrides["top_k"]) == (5, 0)


def test_each_name_keeps_the_stops_of_its_own_template() -> None:
    made = shared({}, [model("a", defaults={"stop": ["<a>"]}), model("b", overrides={"stop": ["<b>"]})], 5, 100)

    assert made.reasons == ()
    assert made.rules[0].defaults == {"stop": ["<a>"]}
    assert made.rules[1].overrides["stop"] == ["<b>"]
    assert "stop" not in made.settings


def test_a_server_of_others_gets_only_what_openai_has_and_it_is_said() -> None:
    made = shared({}, [model("a"), model("far", is_local=False)], 5, 100)
    asked = shared({"top_k": 3}, [model("a"), model("far", is_local=False)], 5, 100)

    assert made.settings.keys() == {"temperature", "top_p", "seed", "max_tokens"}
    assert made.rules[1].overrides == made.settings
    assert made.notes == ("far: a server of others answers, with its own top_k, min_p, repetition_penalty",)
    assert asked.rules[1].overrides["top_k"] == asked.settings["top_k"] == 3


# -- the contexts, by themselves


@pytest.mark.parametrize(("size", "answer", "fits"), [(100, 10, True), (1000, 10, False), (100, 2000, False)])
def test_a_prompt_with_fewer_bytes_than_the_contexts_have_tokens_needs_no_count(
    size: int, answer: int, fits: bool
) -> None:
    assert surely_fits([Room("a", 1024), Room("b", None)], size, 1, answer) is fits


def test_the_longest_answer_is_what_the_smallest_room_takes() -> None:
    assert most_tokens([Room("a", 100, 40), Room("b", 80, 30), Room("c", None, 5)]) == 50
    assert most_tokens([Room("a", 100), Room("b", None, 5)]) is None


def test_a_prompt_that_fits_some_contexts_only_is_a_reason() -> None:
    rooms = [Room("a", 8192, 631), Room("b", 512, 640)]

    assert context_reasons(rooms, None) == [
        "the prompt does not fit every context: a 631 of 8192 tokens, b 640 of 512 tokens"
    ]


def test_an_answer_that_fits_some_contexts_only_is_a_reason_with_what_fits() -> None:
    (reason,) = context_reasons([Room("a", 8192, 31), Room("b", 512, 31)], 600)

    assert "at most 481 fit all" in reason
    assert context_reasons([Room("a", 8192, 31), Room("b", 512, 31)], 481) == []


def test_a_prompt_that_fits_nowhere_is_too_long() -> None:
    with pytest.raises(Problem) as refused:
        context_reasons([Room("a", 100, 100), Room("b", 50, 120)], None)

    assert (refused.value.status, refused.value.code) == (400, "context_length_exceeded")


# -- the same over a real relay


async def test_models_whose_overrides_differ_are_compared_only_by_force() -> None:
    async with comparing() as rig:
        await rig.rules("tuned", overrides={"temperature": 0.9})
        refused = await rig.compare()
        asked = len(rig.base.bodies)
        start = named_events(await rig.compare(force=True))[0][1]

        assert (refused.status, refused.error["code"], asked) == (409, "not_comparable", 0)
        assert "the configuration overrides temperature: 0 for base, 0.9 for tuned" in refused.error["message"]
        assert start["warnings"] == ["the configuration overrides temperature: 0 for base, 0.9 for tuned"]
        assert (rig.base.last["temperature"], rig.tuned.last["temperature"]) == (0.0, 0.9)


async def test_a_failed_certificate_is_a_reason_not_to_compare() -> None:
    async with comparing() as rig:
        await rig.change("tuned", parity="failed: stops, sampling")
        refused = await rig.compare()
        forced = await rig.compare(force=True, stream=False)
        await rig.change("tuned", parity="verified 2026-11-27 (trained template qwen)")
        fine = await rig.compare()

    assert (refused.status, refused.error["code"]) == (409, "not_comparable")
    assert "the certificate of tuned has failed: stops, sampling" in refused.error["message"]
    assert (forced.status, len(forced.json["warnings"])) == (200, 1)
    assert fine.status == 200


async def test_a_prompt_that_fits_one_context_only_is_refused_before_any_model_answers() -> None:
    async with comparing(saying("a", tokens=40), saying("b", tokens=44)) as rig:
        await rig.context("base", 512)
        await rig.context("tuned", 42)
        refused = await rig.compare()

        assert (refused.status, refused.error["code"]) == (409, "not_comparable")
        assert "base 40 of 512 tokens, tuned 44 of 42 tokens" in refused.error["message"]
        assert [body for body in rig.base.bodies if "temperature" in body] == []


async def test_an_answer_is_as_long_as_the_smallest_context_allows() -> None:
    async with comparing(saying("a", tokens=40), saying("b", tokens=44)) as rig:
        await rig.context("base", 512)
        await rig.context("tuned", 100)
        start = named_events(await rig.compare())[0][1]
        refused = await rig.compare(max_tokens=57)

        sent = [body["max_tokens"] for body in rig.base.bodies if "temperature" in body]
        assert (start["settings"]["max_tokens"], sent) == (56, [56])
        assert "at most 56 fit all" in refused.error["message"]


async def test_an_engine_that_cannot_count_leaves_the_length_to_itself() -> None:
    async with comparing(failing(), failing()) as rig:
        await rig.context("base", 100)
        start = named_events(await rig.compare())[0][1]

    assert start["settings"]["max_tokens"] == 50


async def test_a_refusal_after_the_stream_was_kept_alive_is_an_event() -> None:
    """The prompt is counted first, and an engine may have to be started for it."""
    async with comparing(saying("a", tokens=90), saying("b", tokens=90), Limits(hold_s=0.05)) as rig:
        await rig.context("base", 512)
        stopped = backend(None, "tuned", can_start=True, facts={"": ModelFacts(context_length=80)})
        await rig.rig.published(backends={**rig.rig.table.backends, "tuned": stopped})
        async with asyncio.timeout(20), Client(rig.rig.url) as client:
            client.send(request("POST", "/v1/compare", ASK))
            await client.reader.readuntil(b": waiting\n\n")
            serves = backend(rig.tuned.url, "tuned", facts=stopped.facts)
            await rig.rig.published(backends={**rig.rig.table.backends, "tuned": serves})
            rig.rig.fleet.asked["tuned"].set_result(WaitOutcome(True))

            seen = await client.reader.readuntil(b"0\r\n\r\n")
        assert rig.rig.sample("modelport_rejected_requests_total", reason="not_comparable") == 1

    assert b'event: error\ndata: {"index":null,"error":{"message":"These models are not comparable' in seen
