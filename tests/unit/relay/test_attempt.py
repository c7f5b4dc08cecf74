"""What one engine is sent for a request, made without an engine and without a gateway."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.dialects.chat_templates import TemplateSupport
from app.relay.planning.attempt import Attempt, Concessions, check, place, prepare
from app.relay.planning.plan import OPERATIONS, RequestPlan, plan
from app.table import Backend, PublicModel, Table, Target
from backends.endpoint import DECLARED, Dialect, Endpoint, ModelFacts, State, UsageMode
from backends.errors import Unsupported

ENDPOINT = Endpoint("engine", 1, "http://127.0.0.1:1/v1", usage=UsageMode.ASK)
HI: list[Any] = [{"role": "user", "content": "hi"}]


def row(kind: str = "vllm", *capabilities: str) -> Backend:
    facts = {"m": ModelFacts(context_length=512, capabilities=dict.fromkeys(capabilities, DECLARED))}
    return Backend("engine", kind, State.READY, endpoint=ENDPOINT, facts=facts)


def planned(path: str = "/v1/chat/completions", kind: str = "vllm", **fields: Any) -> RequestPlan:
    table = Table(1, {"m": PublicModel("m", (Target("engine", "m"),))}, {}, (), {"engine": row(kind)})
    body = {"model": "m", **({"input": "x"} if path == "/v1/embeddings" else {"messages": HI}), **fields}
    return plan(OPERATIONS[path], json.dumps(body).encode(), table, None)


def attempted(request: RequestPlan, *concessions: Any, **endpoint: Any) -> tuple[Attempt, dict[str, Any]]:
    """The attempt, and its body."""
    served = msgspec.structs.replace(ENDPOINT, **endpoint)
    attempt = prepare(request, row(), served, "m", Concessions(*concessions))
    body: dict[str, Any] = json.loads(attempt.call.body)
    return attempt, body


def test_a_request_that_needs_nothing_is_sent_as_the_client_wrote_it() -> None:
    request = planned(temperature=0.5)

    attempt = prepare(request, row(), ENDPOINT, "m")

    assert attempt.call.body is request.body
    assert (attempt.call.path, attempt.adjusted, attempt.dropped) == ("/chat/completions", (), ())
    assert not attempt.hides_usage
    assert not attempt.gathers


def test_what_was_adjusted_and_dropped_has_the_clients_own_names() -> None:
    request = msgspec.structs.replace(
        planned(top_p=0, service_tier="flex"), spelled={"top_p": "topP", "service_tier": "tier"}, dropped=("mirostat",)
    )

    attempt, body = attempted(request)

    assert (attempt.adjusted, attempt.dropped) == (("topP",), ("mirostat", "tier"))
    assert body["top_p"] == 1
    assert "service_tier" not in body


def test_an_engine_that_refused_stream_options_is_not_sent_them_again() -> None:
    request = planned(stream=True)

    asked, with_it = attempted(request)
    again, without = attempted(request, None, None, True)

    assert asked.hides_usage
    assert with_it["stream_options"] == {"include_usage": True}
    assert not again.hides_usage
    assert "stream_options" not in without


def test_a_whole_response_of_an_engine_that_notices_leaving_clients_only_in_streams_is_gathered() -> None:
    attempt, body = attempted(planned(), gathers=True)

    assert attempt.gathers
    assert not attempt.hides_usage
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


def test_system_messages_are_folded_only_where_the_template_is_known_not_to_take_them() -> None:
    request = planned(messages=[{"role": "system", "content": "be short"}, *HI])

    unknown, as_it_was = attempted(request)
    known, folded = attempted(request, None, TemplateSupport(first=False, several=False, late=False))

    assert (unknown.adjusted, known.adjusted) == ((), ("messages",))
    assert as_it_was["messages"][0]["role"] == "system"
    assert folded["messages"] == [{"role": "user", "content": "be short\n\nhi"}]


def test_a_daemon_is_asked_in_its_own_words() -> None:
    request = planned(kind="ollama")

    attempt = prepare(request, row("ollama"), msgspec.structs.replace(ENDPOINT, dialect=Dialect.OLLAMA), "m")

    assert (attempt.call.path, json.loads(attempt.call.body)["messages"]) == ("/api/chat", HI)


@pytest.mark.parametrize(
    ("path", "can", "is_refused"),
    [
        ("/v1/embeddings", ("chat",), True),
        ("/v1/embeddings", ("chat", "embedding"), False),
        ("/v1/embeddings", (), False),
        ("/v1/chat/completions", ("embedding",), True),
        ("/v1/chat/completions", ("completion",), False),
    ],
)
def test_a_model_is_not_asked_for_what_its_engine_says_it_cannot_do(
    path: str, can: tuple[str, ...], is_refused: bool
) -> None:
    request = planned(path)

    if not is_refused:
        check(request, row("vllm", *can), "m")
        return
    with pytest.raises(Unsupported) as refusal:
        check(request, row("vllm", *can), "m")
    assert refusal.value.param == "model"


def test_a_picture_elsewhere_is_refused_before_an_engine_is_waited_for() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://pictures.example/cat.png"}}
    request = planned(messages=[{"role": "user", "content": [picture]}])

    with pytest.raises(Unsupported) as refusal:
        check(request, row(), "m")

    assert refusal.value.param == "messages[0].content[0].image_url.url"
    check(request, msgspec.structs.replace(row(), media_domains=("pictures.example",)), "m")


# -- how likely a prompt is


def echoing(kind: str = "llama_cpp", **fields: Any) -> RequestPlan:
    table = Table(1, {"m": PublicModel("m", (Target("engine", "m"),))}, {}, (), {"engine": row(kind)})
    body = {"model": "m", "prompt": "x", "echo": True, "logprobs": 0, "max_tokens": 0, **fields}
    return plan(OPERATIONS["/v1/completions"], json.dumps(body).encode(), table, None)


def test_how_likely_a_prompt_is_is_asked_beside_the_server_where_the_engine_has_such_a_place() -> None:
    beside = msgspec.structs.replace(
        ENDPOINT, likelihood="http://127.0.0.1:2/v1", usage=UsageMode.TIMINGS, gathers=True, headers={"a": "b"}
    )
    request = echoing()

    there = place(request, beside)
    attempt = prepare(request, row("llama_cpp"), there, "m")

    assert (there.address, there.headers, there.generation) == ("http://127.0.0.1:2/v1", {"a": "b"}, 1)
    assert not attempt.gathers
    assert json.loads(attempt.call.body) == json.loads(request.body), "0 stays 0"
    assert place(echoing(echo=False), beside) is beside
    assert place(planned(), beside) is beside
    assert place(request, ENDPOINT) is ENDPOINT


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 2}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": None, "max_completion_tokens": 7}, "max_completion_tokens"),
    ],
)
def test_beside_an_echo_the_embedded_engine_writes_one_token_at_most(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Unsupported, match="'max_tokens' must be 0 or 1") as refused:
        prepare(echoing(**fields), row("llama_cpp"), ENDPOINT, "m")

    assert refused.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "echo"),
        ({"echo": False, "logprobs": None, "prompt_logprobs": 1, "max_tokens": 1}, "prompt_logprobs"),
        ({"logprobs": None}, None),
        ({"echo": False, "max_tokens": 1}, None),
    ],
)
def test_an_engine_that_would_die_of_it_is_not_asked(fields: dict[str, Any], param: str | None) -> None:
    mortal = msgspec.structs.replace(row(), facts={"m": ModelFacts(no_prompt_logprobs="it may end")})
    request = echoing("vllm", **fields)

    if param is None:
        assert prepare(request, mortal, ENDPOINT, "m").call.path == "/completions"
        return
    with pytest.raises(Unsupported, match=r"must not be asked of this engine: it may end\.") as refused:
        prepare(request, mortal, ENDPOINT, "m")
    assert refused.value.param == param
