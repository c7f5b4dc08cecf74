"""What a request's body asks for, and what each engine is sent for it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.errors import Problem
from app.relay.planning import attempt
from app.relay.planning.plan import OPERATIONS, RequestPlan, plan
from app.table import Backend, Key, PublicModel, Table, Target, Wildcard
from backends.endpoint import Endpoint, State, UsageMode

CHAT, COMPLETION, EMBEDDING, *_ = OPERATIONS.values()
TABLE = Table(
    version=1,
    models={n: PublicModel(n, (Target("gpu", n),)) for n in ("base", "secret", "modèle")},
    aliases={"gpt-4": "base", "s": "secret"},
    wildcards=(Wildcard("ollama/", "daemon"),),
    backends={n: Backend(n, "vllm", State.STOPPED) for n in ("gpu", "daemon")},
)
GPU, SERVED = TABLE.backends["gpu"], Endpoint("gpu", 1, "http://127.0.0.1:1/v1")
MESSAGES: list[dict[str, str]] = [{"role": "user", "content": "hi"}]


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "base", "messages": MESSAGES, **fields}, ensure_ascii=False).encode()


def planned(body: bytes, table: Table = TABLE, key: Key | None = None) -> RequestPlan:
    return plan(CHAT, body, table, key)


def attempted(body: bytes, model: str = "base", *, usage: UsageMode = UsageMode.ASK) -> attempt.Attempt:
    """What the engine is sent, which has this name for its model."""
    return attempt.prepare(planned(body), GPU, msgspec.structs.replace(SERVED, usage=usage), model)


def with_default(name: str) -> Table:
    return Table(**{field: getattr(TABLE, field) for field in TABLE.__struct_fields__} | {"default_model": name})


REFUSED: dict[str, tuple[bytes, int, str | None, str]] = {
    "empty": (b"", 400, None, "invalid_json"),
    "not JSON": (b"{", 400, None, "invalid_json"),
    "list": (b"[]", 400, None, "invalid_json"),
    "no model": (b'{"messages":[{"role":"user","content":"x"}]}', 400, "model", "missing_field"),
    "empty model": (chat(model=""), 400, "model", "missing_field"),
    "null model": (chat(model=None), 400, "model", "missing_field"),
    "number as model": (chat(model=7), 400, "model", "invalid_type"),
    "text as stream": (chat(stream="yes"), 400, "stream", "invalid_type"),
    "no messages": (b'{"model":"base"}', 400, "messages", "missing_field"),
    "text as messages": (chat(messages="hi"), 400, "messages", "invalid_type"),
    "unknown model": (chat(model="nope"), 404, "model", "model_not_found"),
    "long model": (chat(model="x" * 1000), 404, "model", "model_not_found"),
    "wildcard itself": (chat(model="ollama/"), 404, "model", "model_not_found"),
}


@pytest.mark.parametrize(("body", "status", "param", "code"), REFUSED.values(), ids=REFUSED)
def test_a_request_that_cannot_be_is_refused_with_the_fields_name(
    body: bytes, status: int, param: str | None, code: str
) -> None:
    with pytest.raises(Problem) as caught:
        planned(body)

    assert (caught.value.status, caught.value.param, caught.value.code) == (status, param, code)


@pytest.mark.parametrize("operation", [COMPLETION, EMBEDDING])
def test_the_field_an_operation_cannot_do_without_is_asked_for(operation: Any) -> None:
    with pytest.raises(Problem) as caught:
        plan(operation, b'{"model":"base"}', TABLE, None)

    assert (caught.value.code, caught.value.param) == ("missing_field", operation.needs)
    assert plan(operation, f'{{"model":"base","{operation.needs}":"x"}}'.encode(), TABLE, None)


FLAGS: dict[str, tuple[dict[str, Any], tuple[bool, bool]]] = {
    "plain": ({}, (False, False)),
    "stream": ({"stream": True}, (True, False)),
    "null": ({"stream": None, "stream_options": None}, (False, False)),
    "usage": ({"stream": True, "stream_options": {"include_usage": True}}, (True, True)),
    "no usage": ({"stream": True, "stream_options": {"include_usage": False, "x": 1}}, (True, False)),
}


@pytest.mark.parametrize(("fields", "expected"), FLAGS.values(), ids=FLAGS)
def test_stream_and_usage_are_read(fields: dict[str, Any], expected: tuple[bool, bool]) -> None:
    made = planned(chat(**fields))

    assert (made.is_stream, made.wants_usage) == expected


def test_embeddings_are_never_a_stream() -> None:
    assert not plan(EMBEDDING, b'{"model":"base","input":"x","stream":true}', TABLE, None).is_stream


@pytest.mark.parametrize(
    ("usage", "fields", "hides"),
    [
        (UsageMode.ASK, {"stream": True}, True),
        (UsageMode.TRY, {"stream": True}, True),
        (UsageMode.TIMINGS, {"stream": True}, False),
        (UsageMode.ASK, {}, False),
        (UsageMode.ASK, {"stream": True, "stream_options": {"include_usage": True}}, False),
    ],
)
def test_usage_is_asked_for_on_the_clients_behalf_only_in_its_streams(
    usage: UsageMode, fields: dict[str, Any], hides: bool
) -> None:
    assert attempted(chat(**fields), usage=usage).hides_usage is hides


ODD_BODY = b' {"messages" : [ {"role":"user", "content":"\\u00fc \xc3\xbc"} ],\n"x": 1.50, "model":"base" } '


def test_the_clients_bytes_go_through_unchanged_when_nothing_has_to_change() -> None:
    assert attempted(ODD_BODY).call.body is ODD_BODY


@pytest.mark.parametrize("name", ["other", "/srv/model", 'a "b"', "模型"])
def test_only_the_models_name_is_edited(name: str) -> None:
    edited = attempted(ODD_BODY, name).call.body

    assert json.loads(edited) == json.loads(ODD_BODY) | {"model": name}
    assert b'[ {"role":"user", "content":"\\u00fc \xc3\xbc"} ]' in edited
    assert b'"x":1.50' in edited


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"include_usage": True}),
        ({"stream_options": None}, {"include_usage": True}),
        ({"stream_options": {}}, {"include_usage": True}),
        ({"stream_options": {"include_usage": False, "new": [1]}}, {"include_usage": True, "new": [1]}),
    ],
)
def test_usage_is_spliced_into_the_options_the_client_sent(given: dict[str, Any], sent: dict[str, Any]) -> None:
    body = chat(stream=True, **given)

    edited = attempted(body).call.body

    assert json.loads(edited) == json.loads(body) | {"stream_options": sent}


def test_the_name_in_answers_is_the_clients_own() -> None:
    for name in ("gpt-4", "ollama/x", "modèle"):
        assert planned(chat(model=name)).name == name


@pytest.mark.parametrize("body", [b'{"messages":[{"role":"user","content":"x"}]}', chat(model=None), chat(model="")])
def test_a_request_without_a_model_goes_to_the_default_under_its_name(body: bytes) -> None:
    made = planned(body, with_default("base"))

    assert (made.name, made.resolved.name) == ("base", "base")
    for name in ("engine-name", "base"):
        assert json.loads(attempt.prepare(made, GPU, SERVED, name).call.body)["model"] == name


ALLOWED: dict[tuple[tuple[str, ...], str], bool] = {
    (("base",), "base"): True,
    (("base",), "gpt-4"): True,
    (("base",), "secret"): False,
    (("base",), "s"): False,
    (("ollama/*",), "ollama/x"): True,
    (("ollama/*",), "base"): False,
}


@pytest.mark.parametrize(("listed", "name"), ALLOWED)
def test_a_model_a_key_may_not_use_does_not_exist_for_it(listed: tuple[str, ...], name: str) -> None:
    key = Key("k", "0" * 64, listed)

    if ALLOWED[listed, name]:
        assert planned(chat(model=name), key=key)
        return
    with pytest.raises(Problem) as caught:
        planned(chat(model=name), key=key)
    assert caught.value.status == 404
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("name", ["free-anything", "nonsense"])
def test_the_default_model_is_no_way_around_a_keys_list(name: str) -> None:
    """A pattern in a key's list may fit a name that nothing serves but the default model."""
    key = Key("k", "0" * 64, ("free-*",))

    with pytest.raises(Problem) as caught:
        planned(chat(model=name), with_default("secret"), key)

    assert caught.value.code == "model_not_found"


def test_an_unknown_name_gets_the_nearest_the_key_may_see_and_is_not_echoed() -> None:
    with pytest.raises(Problem) as known:
        planned(chat(model="secreet"))
    with pytest.raises(Problem) as unknown:
        planned(chat(model="secreet"), key=Key("k", "0" * 64, ("base",)))

    assert "'secret'" in known.value.message
    assert "secre" not in unknown.value.message
    assert "secreet" not in known.value.message
