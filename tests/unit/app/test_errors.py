"""One table: every failure has its status, its code and its advice, in OpenAI's shape."""

from __future__ import annotations

import json

import pytest

from app import errors
from app.errors import TABLE, Problem, outcome, problem, retry_after
from backends import errors as backend

EXPECTED = {
    backend.Unreachable: (502, "engine_unreachable", "true"),
    backend.Stale: (503, "engine_not_ready", "true"),
    backend.NotReady: (503, "engine_not_ready", "true"),
    backend.GivenUp: (503, "engine_not_ready", "false"),
    backend.Saturated: (429, "engine_saturated", "true"),
    backend.Disconnected: (502, "engine_disconnected", "false"),
    backend.TimedOut: (504, "engine_timeout", "false"),
    backend.Broken: (502, "engine_broken_answer", "false"),
    backend.EngineFailed: (502, "engine_failed", "false"),
}


def leaves(kind: type[backend.BackendError]) -> set[type[backend.BackendError]]:
    """The failures of the tree itself; kinds of engines may refine them."""
    below = [each for each in kind.__subclasses__() if each.__module__ == backend.__name__]
    return {leaf for each in below for leaf in leaves(each)} if below else {kind}


def test_every_failure_of_the_tree_is_in_the_table() -> None:
    refined = {  # as their parents have them
        backend.Refused: backend.Unreachable,
        backend.Lost: backend.Unreachable,
        backend.NotFinite: backend.EngineFailed,
        backend.NoEffect: backend.EngineFailed,
    }
    assert {kind: kind.__base__ for kind in refined} == refined
    assert leaves(backend.BackendError) == {*TABLE, *refined, backend.Rejected, backend.Unsupported} - {
        *refined.values()
    }


@pytest.mark.parametrize(("kind", "expected"), EXPECTED.items(), ids=[kind.__name__ for kind in EXPECTED])
def test_a_failure_becomes_its_status_code_and_advice(
    kind: type[backend.BackendError], expected: tuple[int, str, str]
) -> None:
    made = problem(kind("gpu", "it is what it is"))

    assert (made.status, made.code, made.headers["x-should-retry"]) == expected
    assert made.message == "gpu: it is what it is"
    is_advised = made.status in (429, 503) and kind is not backend.GivenUp
    assert ("retry-after" in made.headers) is is_advised
    assert outcome(kind("gpu", "")) == expected[1]


def test_a_refined_failure_counts_as_the_one_it_refines() -> None:
    class Cold(backend.NotReady):
        """One engine's own way of not being ready."""

    assert problem(Cold("gpu", "")).status == 503
    assert outcome(Cold("gpu", "")) == "engine_not_ready"


def test_only_what_the_engine_cannot_have_taken_may_be_sent_again() -> None:
    for kind, (_, _, may_retry) in TABLE.items():
        assert may_retry is (issubclass(kind, backend.NotTaken) and kind is not backend.GivenUp)


@pytest.mark.parametrize(("seconds", "told"), [(None, None), (0.2, "1"), (59.4, "60"), (599.3, "600"), (-3.0, "1")])
def test_what_has_given_up_is_not_asked_again_and_says_when_it_may_be(seconds: float | None, told: str | None) -> None:
    made = problem(backend.GivenUp("gpu", "it failed", seconds))

    assert made.headers.get("retry-after") == told
    assert made.headers["x-should-retry"] == "false"
    assert "retry-after-ms" not in made.headers


def test_the_engines_refusal_is_told_in_its_own_words_but_counted_in_ours() -> None:
    error = backend.Rejected("gpu", "too long", status=413, type_="x_error", code="made_up_by_engine", param="messages")

    made = problem(error)

    assert json.loads(made.body()) == {
        "error": {"message": "too long", "type": "x_error", "param": "messages", "code": "made_up_by_engine"}
    }
    assert made.status == 413
    assert "x-should-retry" not in made.headers
    assert outcome(error) == "engine_rejected"


WAITS = {0.0: "1", 0.2: "1", 1.0: "1", 1.2: "2", 7.0: "7", 119.5: "120", 120.0: "120", 1e9: "120", -3.0: "1"}


@pytest.mark.parametrize(("seconds", "expected"), WAITS.items())
def test_retry_after_is_whole_seconds_between_one_and_two_minutes(seconds: float, expected: str) -> None:
    headers = retry_after(seconds)

    assert headers["retry-after"] == expected
    assert int(headers["retry-after-ms"]) <= int(expected) * 1000


@pytest.mark.parametrize(("given", "expected"), [(None, "5"), (0.0, "1"), (7.0, "7"), (9999.0, "120")])
def test_the_engines_own_advice_is_passed_on_within_bounds(given: float | None, expected: str) -> None:
    assert problem(backend.NotReady("gpu", "no", given)).headers["retry-after"] == expected


PROBLEMS: dict[str, tuple[Problem, int, str]] = {
    "bad request": (errors.bad_request("no", param="model"), 400, "invalid_request"),
    "not found": (errors.not_found(), 404, "route_not_found"),
    "wrong method": (errors.method_not_allowed("GET, HEAD"), 405, "method_not_allowed"),
    "no key": (errors.unauthorized("no"), 401, "invalid_api_key"),
    "not allowed": (errors.forbidden("no"), 403, "not_allowed"),
}


@pytest.mark.parametrize(("refusal", "status", "code"), PROBLEMS.values(), ids=PROBLEMS)
def test_our_own_refusals_have_the_same_shape(refusal: Problem, status: int, code: str) -> None:
    told = json.loads(refusal.body())["error"]

    assert refusal.status == status
    assert set(told) == {"message", "type", "param", "code"}
    assert (told["type"], told["code"]) == ("invalid_request_error", code)


def test_a_key_that_cannot_be_checked_is_a_503_to_be_tried_again() -> None:
    refusal = errors.keys_unavailable("not now")

    assert (refusal.status, refusal.code, refusal.type) == (503, "keys_unavailable", "server_error")
    assert (refusal.headers["x-should-retry"], refusal.headers["retry-after"]) == ("true", "5")


def test_headers_that_the_protocol_asks_for_are_there() -> None:
    assert errors.method_not_allowed("GET, HEAD").headers == {"allow": "GET, HEAD"}
    assert errors.unauthorized("no").headers == {"www-authenticate": "Bearer"}
