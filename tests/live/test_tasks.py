"""Ranks and tokens of a real vLLM, and its other routes, which no client reaches."""

from __future__ import annotations

import httpx

from tests.live.engines import Live
from tests.unit.relay.test_tasks import VLLM

QUESTION = [{"role": "user", "content": "Say something."}]


def test_tokens_come_back_as_the_text_they_were(live: Live) -> None:
    tokens = httpx.post(
        f"{live.base_url}/tokenize", json={"model": "tiny", "prompt": "Hello", "return_token_strs": True}
    )
    back = httpx.post(f"{live.base_url}/detokenize", json={"model": "tiny", "tokens": tokens.json()["tokens"]})

    assert tokens.json()["count"] == len(tokens.json()["tokens"]) == len(tokens.json()["token_strs"])
    assert back.json() == {"prompt": "Hello"}


def test_a_conversation_has_the_tokens_that_its_answer_is_charged_for(live: Live) -> None:
    tokens = httpx.post(f"{live.base_url}/tokenize", json={"model": "tiny", "messages": QUESTION}).json()
    asked = {"model": "tiny", "messages": QUESTION, "max_tokens": 1}
    answer = httpx.post(f"{live.base_url}/chat/completions", json=asked, timeout=60).json()

    assert tokens["count"] == answer["usage"]["prompt_tokens"]


def test_what_a_model_that_writes_cannot_is_said_with_its_name(live: Live) -> None:
    ranking = {"model": "tiny", "query": "q", "documents": ["a"]}
    refusals = [
        httpx.post(f"{live.base_url}/rerank", json=ranking),
        httpx.post(f"{live.base_url}/score", json={"model": "tiny", "text_1": "q", "text_2": "a"}),
        httpx.post(f"{live.base_url}/audio/transcriptions", data={"model": "tiny"}, files={"file": b"RIFF"}),
    ]

    assert [refusal.status_code for refusal in refusals] == [400, 400, 400]
    assert {refusal.json()["error"]["code"] for refusal in refusals} == {"not_supported"}
    assert all(refusal.json()["error"]["message"].startswith("'tiny' does not") for refusal in refusals)


def test_no_route_of_vllms_operator_is_reached(live: Live) -> None:
    with httpx.Client(base_url=live.url) as client:
        answers = {path: client.post(path, json={"model": "tiny"}).status_code for path in VLLM.split()}

    assert set(answers.values()) == {404}
