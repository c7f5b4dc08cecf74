"""How many tokens a request may come to (app/relay/planning/token_estimate.py)."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from app.relay.http.multipart import Form, FormPart
from app.relay.planning.plan import FORMS, OPERATIONS, RequestPlan, counting, plan, plan_form
from app.relay.planning.token_estimate import MEDIA_TOKENS, MOST_TOKENS, NO_TOKENS, TokenEstimate, estimate
from app.table import PublicModel, Rules, Table, Target

ASSUMED = 500
MESSAGES = [{"role": "user", "content": "hello"}]


def made_table(rules: Rules) -> Table:
    return Table(0, {"fake": PublicModel("fake", (Target("e", "fake"),), rules=rules)}, {}, (), {})


def made(path: str, fields: dict[str, Any], rules: Rules | None = None) -> RequestPlan:
    body = json.dumps({"model": "fake", **fields}).encode()
    return plan(OPERATIONS[path], body, made_table(rules or Rules()), None)


def chat(**fields: Any) -> TokenEstimate:
    return estimate(made("/v1/chat/completions", {"messages": MESSAGES, **fields}), ASSUMED)


def test_a_text_is_a_token_for_four_bytes() -> None:
    short, long = chat(), chat(messages=[{"role": "user", "content": "hello" + "x" * 4000}])

    assert long[0] - short[0] == 1000


@pytest.mark.parametrize(
    ("fields", "answer", "is_assumed"),
    [
        ({}, ASSUMED, True),
        ({"max_tokens": 20}, 20, False),
        ({"max_completion_tokens": 30}, 30, False),
        ({"max_tokens": 20, "max_completion_tokens": 30}, 30, False),
        ({"max_tokens": None}, ASSUMED, True),
        ({"max_completion_tokens": -1}, ASSUMED, True),
        ({"max_completion_tokens": 30.0}, 30, False),
        ({"max_tokens": 20, "n": 3}, 60, False),
        ({"n": 2}, 2 * ASSUMED, True),
        ({"max_tokens": 10**30}, MOST_TOKENS, False),
        ({"max_completion_tokens": 1e308, "n": 2}, 2 * MOST_TOKENS, False),
    ],
)
def test_an_answer_is_as_long_as_it_may_be(fields: dict[str, Any], answer: int, is_assumed: bool) -> None:
    assert chat(**fields)[1:] == (answer, is_assumed)


def test_several_prompts_have_several_answers() -> None:
    asked = made("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 10, "n": 2})

    assert estimate(asked, ASSUMED)[1] == 40


@pytest.mark.parametrize(
    ("rules", "fields", "answer"),
    [
        (Rules(defaults={"max_tokens": 64}), {}, 64),
        (Rules(defaults={"max_tokens": 64}), {"max_tokens": 100}, 100),
        (Rules(defaults={"max_tokens": 64}), {"max_tokens": None}, 64),
        (Rules(overrides={"max_tokens": 8}), {"max_tokens": 100}, 8),
    ],
)
def test_what_the_configuration_sets_counts_as_engines_get_it(
    rules: Rules, fields: dict[str, Any], answer: int
) -> None:
    asked = made("/v1/chat/completions", {"messages": MESSAGES, **fields}, rules)

    assert estimate(asked, ASSUMED)[1] == answer


@pytest.mark.parametrize("mark", ["image_url", "input_audio", "compact"])
def test_a_picture_or_a_sound_is_a_flat_figure_whatever_its_size(mark: str) -> None:
    data = base64.b64encode(bytes(300_000)).decode()
    parts: list[dict[str, Any]] = {
        "image_url": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}],
        "input_audio": [{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}],
        "compact": [{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}] * 2,
    }[mark]
    fields = {"model": "fake", "messages": [{"role": "user", "content": parts}]}
    separators = (",", ":") if mark == "compact" else None
    body = json.dumps(fields, separators=separators).encode()
    asked = msgspec.structs.replace(made("/v1/chat/completions", {"messages": MESSAGES}), body=body)

    prompt = estimate(asked, ASSUMED)[0]

    assert MEDIA_TOKENS * len(parts) <= prompt < MEDIA_TOKENS * len(parts) + 100


@pytest.mark.parametrize(("path", "field"), [("/v1/completions", "prompt"), ("/v1/embeddings", "input")])
@pytest.mark.parametrize("as_list", [False, True])
def test_of_a_list_of_tokens_each_counts(path: str, field: str, as_list: bool) -> None:
    tokens = list(range(1000))
    asked = made(path, {field: [tokens, tokens] if as_list else tokens})

    assert (2000 if as_list else 1000) <= estimate(asked, ASSUMED)[0] <= (2002 if as_list else 1002)


def test_embeddings_and_ranks_have_no_answer() -> None:
    embedding = made("/v1/embeddings", {"input": "x" * 400})
    ranks = made("/v1/rerank", {"query": "a", "documents": ["x" * 400]})

    assert [estimate(each, ASSUMED)[1] for each in (embedding, ranks)] == [0, 0]
    assert all(100 <= estimate(each, ASSUMED)[0] < 130 for each in (embedding, ranks))


def test_a_sound_to_write_down_is_one_and_a_text() -> None:
    form = Form((FormPart("model", memoryview(b"fake")), FormPart("file", memoryview(bytes(9000)), "a.wav")))
    asked = plan_form(FORMS["/v1/audio/transcriptions"], form, "b", made_table(Rules()), None)

    assert estimate(asked, ASSUMED) == (MEDIA_TOKENS, ASSUMED, False)


@pytest.mark.parametrize("path", ["/v1/tokenize", "/v1/detokenize"])
def test_what_asks_about_tokens_comes_to_none(path: str) -> None:
    fields: dict[str, Any] = {"prompt": "hello"} if path == "/v1/tokenize" else {"tokens": [1, 2]}

    assert estimate(made(path, fields), ASSUMED) is NO_TOKENS


def test_counting_comes_to_none() -> None:
    assert estimate(counting(made("/v1/chat/completions", {"messages": MESSAGES})), ASSUMED) is NO_TOKENS
