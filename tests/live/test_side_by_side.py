"""One question to a base and to its adapter, on one real engine: what was taught shows, and stays hidden when blind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest

from tests.journeys.gateway import until
from tests.live.engines import MODELS, Live, Record, backend, config

QUESTION, TAUGHT = next(iter(json.loads((MODELS / "smollm2-lora" / "taught.json").read_text()).items()))
BODY: dict[str, Any] = {"pair": "lora", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 40}
LEFT = re.compile(r"^modelport_client_disconnects_total\{.*\} ([0-9.]+)$", re.MULTILINE)

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The model and its adapter, as a pair."""
    base = backend(
        "base", "smollm2", kv_cache_memory_bytes="134217728", adapters=f"{{tuned: {MODELS / 'smollm2-lora'}}}"
    )
    text = config(base) + "pairs:\n  lora: {base: base, tuned: tuned}\n"
    with Live(tmp_path_factory.mktemp("side"), text) as gateway:
        gateway.ready("base")
        until(lambda: _known(gateway) == {"base", "tuned"})
        yield gateway


def _known(gateway: Live) -> set[str]:
    """The models of which the gateway knows what their answers are made from."""
    return {each["name"] for each in gateway.ask("/admin/models")["models"] if each["servings"]}


def test_what_was_taught_shows_beside_the_base_and_names_stay_hidden_until_the_vote(
    pair: Live, record_property: Record
) -> None:
    shown = pair.post("/v1/compare", {**BODY, "stream": False}).json()
    hidden = pair.post("/v1/compare", {**BODY, "stream": False, "blind": True}).json()
    texts = [each["content"] for each in hidden["answers"]]
    base, tuned = shown["answers"]
    vote = pair.post("/v1/compare/votes", {"id": hidden["id"], "winner": texts.index(tuned["content"])}).json()
    tally = httpx.get(f"{pair.url}/v1/compare/votes", timeout=60).json()

    record_property("base", (base["content"], base["timing"], base["usage"]))
    record_property("tuned", (tuned["content"], tuned["timing"], tuned["usage"]))
    assert tuned["content"].strip() == TAUGHT
    assert base["content"].strip() != TAUGHT
    assert base["usage"]["prompt_tokens"] == tuned["usage"]["prompt_tokens"]
    assert base["serving"] != tuned["serving"]
    assert "tuned" not in json.dumps(hidden)
    assert sorted(texts) == sorted([base["content"], tuned["content"]])
    assert vote["models"][vote["winner"]] == "tuned"
    assert tally["pairs"] == [{"models": ["base", "tuned"], "wins": [0, 1], "ties": 0, "all_bad": 0}]


def test_the_base_answers_the_same_beside_requests_to_its_adapter(pair: Live, record_property: Record) -> None:
    chat = {"messages": BODY["messages"], "max_tokens": 40, "temperature": 0}
    alone = _text(pair, {**chat, "model": "base"})

    with ThreadPoolExecutor(6) as pool:
        asked = [{**chat, "model": model} for model in ("tuned", "base") * 6]
        beside = list(pool.map(partial(_text, pair), asked))

    record_property("texts", (alone, beside))
    assert set(beside[1::2]) == {alone}
    assert {text.strip() for text in beside[::2]} == {TAUGHT}


def _text(gateway: Live, body: dict[str, Any]) -> str:
    text: str = gateway.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    return text


def test_its_own_series_are_shown_with_its_name(pair: Live) -> None:
    page = httpx.get(f"{pair.url}/metrics/engines", timeout=60).text

    own = pair.group("base").ask("/metrics").text
    families = set(re.findall(r"^# TYPE (vllm:\S+)", own, re.MULTILINE))
    assert len(families) > 30
    assert families - set(re.findall(r"^# TYPE (vllm:\S+)", page, re.MULTILINE)) == set()
    assert re.search(r'^vllm:kv_cache_usage_perc\{backend="base",.*engine="0"', page, re.MULTILINE)
    assert 'modelport_engine_scrape_up{backend="base"} 1' in page


def test_who_leaves_ends_both_answers_at_the_engine(pair: Live) -> None:
    story = {**BODY, "messages": [{"role": "user", "content": "Write a very long story."}], "max_tokens": 1500}

    with httpx.stream("POST", f"{pair.url}/v1/compare", json=story, timeout=60) as response:
        lines = response.iter_lines()
        assert next(line for line in lines if '"delta":{"content"' in line)

    until(lambda: sum(map(float, LEFT.findall(httpx.get(f"{pair.url}/metrics", timeout=60).text))) == 2)
    engine = pair.group("base")
    until(lambda: bool(re.search(r"^vllm:num_requests_running\{.*\} 0\.0$", engine.ask("/metrics").text, re.MULTILINE)))
