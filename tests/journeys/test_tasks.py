"""Tokens and ranks of the embedded engine, in the shape that vLLM's clients know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.journeys.gateway import MODEL, QUESTION, Gateway


@pytest.fixture
def ask(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.base_url, timeout=60) as client:
        yield client


def post(client: httpx.Client, path: str, **body: Any) -> Any:
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_tokens_come_back_as_the_text_they_were(ask: httpx.Client) -> None:
    text = "Hello wörld 🙂"

    tokens = post(ask, "/tokenize", model=MODEL, prompt=text, return_token_strs=True)
    back = post(ask, "/detokenize", model=MODEL, tokens=tokens["tokens"])

    assert back == {"prompt": text}
    assert tokens["count"] == len(tokens["tokens"]) == len(tokens["token_strs"])
    assert tokens["token_strs"][0] == "Hello"
    assert tokens["max_model_len"] >= 512


def test_a_conversation_has_the_tokens_that_its_answer_is_charged_for(ask: httpx.Client) -> None:
    tokens = post(ask, "/tokenize", model=MODEL, messages=QUESTION)
    answer = post(ask, "/chat/completions", model=MODEL, messages=QUESTION, max_tokens=1)

    assert tokens["count"] == answer["usage"]["prompt_tokens"]
    assert tokens["token_strs"] is None


def test_a_number_that_is_no_token_is_the_clients_mistake(ask: httpx.Client) -> None:
    reply = ask.post("/detokenize", json={"model": MODEL, "tokens": [99_999_999]})

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "tokens")


def test_texts_are_ranked_and_scored(ask: httpx.Client) -> None:
    texts = ["A cat sat.", "Seven plus five is twelve.", "Rain."]

    ranked = post(ask, "/rerank", model="ranker", query="What is 7+5?", documents=texts)
    best = post(ask, "/rerank", model="ranker", query="What is 7+5?", documents=texts, top_n=1)
    scored = post(ask, "/score", model="ranker", text_1="What is 7+5?", text_2=texts)

    scores = [row["relevance_score"] for row in ranked["results"]]
    assert scores == sorted(scores, reverse=True)
    assert {row["index"] for row in ranked["results"]} == {0, 1, 2}
    assert all(row["document"]["text"] == texts[row["index"]] for row in ranked["results"])
    assert [row["index"] for row in best["results"]] == [ranked["results"][0]["index"]]
    assert ranked["model"] == scored["model"] == "ranker"
    assert ranked["usage"]["prompt_tokens"] > 0
    by_index = {row["index"]: row["relevance_score"] for row in ranked["results"]}
    assert [row["score"] for row in scored["data"]] == pytest.approx([by_index[at] for at in range(3)], abs=0.05)


def test_what_a_model_cannot_is_said_with_its_name(ask: httpx.Client) -> None:
    for path, body in (
        ("/rerank", {"query": "q", "documents": ["a"]}),
        ("/score", {"text_1": "q", "text_2": ["a"]}),
    ):
        reply = ask.post(path, json={"model": MODEL, **body})

        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "not_supported")
        assert f"'{MODEL}' does not" in reply.json()["error"]["message"]


def test_a_transcription_goes_through_openai_python(gateway: Gateway) -> None:
    with OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        heard = client.audio.transcriptions.create(model="fake/fake", file=("ä.wav", b"RIFF" * 100))
        with pytest.raises(openai.BadRequestError, match="does not transcribe speech") as deaf:
            client.audio.transcriptions.create(model=MODEL, file=("a.wav", b"RIFF" * 100))

    assert heard.text == "Zwölf ist die Summe."
    assert deaf.value.code == "not_supported"
