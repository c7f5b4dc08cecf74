"""SDKs that meet a limit: they wait as long as they are told, ask again by themselves, and succeed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.journeys.gateway import QUESTION, Fake, Gateway
from tests.journeys.limited import QUICK, SLOW, by_node, by_python, limited


@pytest.fixture(scope="module")
def team(fake: Fake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    keys = {
        "one": "max_parallel: 1",
        "few": "rpm: 2, tpm: 5000",
        "small": "tpm: 100",
        "spent": "budget: {tokens: 30, per: day}",
    }
    with limited(fake, tmp_path_factory.mktemp("limited"), **keys) as gateway:
        yield gateway


def asking(**more: Any) -> Any:
    return {"model": QUICK, "messages": QUESTION, "max_tokens": 4, **more}


def test_openai_python_waits_for_a_place_and_succeeds(team: Gateway) -> None:
    told = by_python(team, "one", SLOW, 2)

    assert told.seconds
    assert told.took_s >= 1.0 + 0.5


def test_openai_node_waits_for_a_place_and_succeeds(team: Gateway, node: Path) -> None:
    assert by_node(team, "one", SLOW, 2, node).seconds


def test_what_is_left_goes_down_and_then_there_is_a_wait_that_sdks_take(team: Gateway) -> None:
    with OpenAI(base_url=team.base_url, api_key="few", max_retries=0) as client:
        answers = [client.chat.completions.with_raw_response.create(**asking()) for _ in range(2)]
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**asking())

    assert [each.headers["x-ratelimit-remaining-requests"] for each in answers] == ["1", "0"]
    tokens = [int(each.headers["x-ratelimit-remaining-tokens"]) for each in answers]
    assert 5000 > tokens[0] > tokens[1] > 4000
    assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "requests")
    assert 55_000 < int(refused.value.response.headers["retry-after-ms"]) < 60_000
    assert refused.value.response.headers["x-should-retry"] == "true"


def test_a_request_that_never_comes_good_is_sent_once(team: Gateway) -> None:
    sent: list[httpx2.Request] = []
    http = httpx2.Client(event_hooks={"request": [sent.append]})
    with (
        OpenAI(base_url=team.base_url, api_key="small", http_client=http) as client,
        pytest.raises(openai.RateLimitError) as refused,
    ):
        client.chat.completions.create(**asking(max_tokens=500))

    assert refused.value.type == "tokens"
    assert len(sent) == 1


def test_a_budget_that_is_used_up_is_not_waited_for(team: Gateway) -> None:
    sent: list[httpx2.Request] = []
    http = httpx2.Client(event_hooks={"request": [sent.append]})
    with (
        OpenAI(base_url=team.base_url, api_key="spent", http_client=http) as client,
        pytest.raises(openai.RateLimitError) as refused,
    ):
        client.chat.completions.create(**asking(max_tokens=1000))

    assert refused.value.code == "insufficient_quota"
    assert len(sent) == 1


def test_anthropics_sdk_is_told_the_same_in_its_own_words(team: Gateway) -> None:
    with (
        Anthropic(base_url=team.url, api_key="few", max_retries=0) as client,
        pytest.raises(anthropic.RateLimitError, match="Rate limit reached") as refused,
    ):
        client.messages.create(model=QUICK, max_tokens=4, messages=[{"role": "user", "content": "hello"}])

    headers = refused.value.response.headers
    assert headers["anthropic-ratelimit-requests-limit"] == "2"
    assert headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert 55_000 < int(headers["retry-after-ms"]) < 60_000
