"""Which statuses of an engine may go to another target, and what the client is told of the others."""

from __future__ import annotations

import math

import pytest

from app.dialects.engine_errors import refusal, retry_after
from backends.errors import BackendError, EngineFailed, NotReady, NotTaken, Rejected, Saturated
from tests.fakes import wire

NOW = 1_000_000_000.0  # Sun, 09 Sep 2001 01:46:40 GMT

KINDS: dict[int, type[BackendError]] = {
    400: Rejected,
    401: EngineFailed,
    402: Rejected,
    403: EngineFailed,
    404: Rejected,
    405: Rejected,
    409: Rejected,
    413: Rejected,
    415: Rejected,
    422: Rejected,
    429: Saturated,
    500: EngineFailed,
    501: Rejected,
    502: EngineFailed,
    503: NotReady,
    504: EngineFailed,
    599: EngineFailed,
}


@pytest.mark.parametrize("dialect", wire.DIALECTS)
@pytest.mark.parametrize(("status", "kind"), KINDS.items())
def test_a_status_means_the_same_in_every_dialect(status: int, kind: type[BackendError], dialect: str) -> None:
    error = refusal("engine", status, {}, wire.error_body(dialect, status)[0], NOW)

    assert type(error) is kind
    assert isinstance(error, NotTaken) is (status in (429, 503))
    assert wire.SECRET not in error.message


CODES = {400: 400, 402: 400, 404: 404, 405: 400, 409: 400, 413: 413, 415: 415, 422: 422, 501: 400}


@pytest.mark.parametrize(("status", "expected"), CODES.items())
def test_a_refusal_of_the_request_keeps_its_status_where_clients_know_it(status: int, expected: int) -> None:
    error = refusal("engine", status, {}, wire.error_body("vllm", status)[0], NOW)

    assert isinstance(error, Rejected)
    assert error.status == expected
    assert error.type == "invalid_request_error"
    assert isinstance(error.code, str)


def test_the_engines_own_code_and_parameter_reach_the_client() -> None:
    error = refusal("engine", 400, {}, wire.error_body("openai", 400)[0], NOW)

    assert isinstance(error, Rejected)
    assert (error.message, error.code, error.param) == (wire.REFUSAL, "engine_code", "messages")


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ("Unknown reasoning format: zzz", "reasoning_format"),
        ("Unknown reasoning format: ", "reasoning_format"),
        ("Failed to parse tools: no", "tools"),
        ("[json.exception.type_error.302] type must be number, but is string", None),
    ],
)
def test_what_llama_cpp_could_not_read_is_the_clients_mistake_though_it_says_500(said: str, param: str | None) -> None:
    error = refusal("engine", 500, {}, wire.dumps({"error": {"message": said, "code": 500}}), NOW)

    assert isinstance(error, Rejected)
    assert (error.status, error.param) == (400, param)


def test_the_engines_other_models_are_not_told() -> None:
    body = wire.dumps({"error": {"message": "no such model. Known: secret-1, secret-2", "code": 404}})

    error = refusal("engine", 404, {}, body, NOW)

    assert isinstance(error, Rejected)
    assert (error.code, error.param) == ("model_not_found", "model")
    assert "secret" not in error.message


@pytest.mark.parametrize("status", [401, 403])
def test_our_own_credential_is_never_the_clients_fault(status: int) -> None:
    error = refusal("engine", status, {}, wire.error_body("vllm", status)[0], NOW)

    assert "credential" in error.message
    assert wire.REFUSAL not in error.message


WAITS: dict[str, float | None] = {
    "7": 7.0,
    " 7 ": 7.0,
    "0": 0.0,
    "1.5": 1.5,
    "99999": 99999.0,
    "Sun, 09 Sep 2001 01:47:40 GMT": 60.0,
    "Sun, 09 Sep 2001 01:46:00 GMT": 0.0,
    "": None,
    "soon": None,
    "-5": None,
    "\N{SUPERSCRIPT TWO}": None,
    "nan": None,
    "inf": None,
    "9" * 400: None,
    "Sun, 99 Sep 99999 01:47:40 GMT": None,
    "Sun,": None,
}


@pytest.mark.parametrize(("value", "expected"), WAITS.items(), ids=[value[:40] or "empty" for value in WAITS])
def test_retry_after_is_seconds_a_date_or_nothing(value: str, expected: float | None) -> None:
    seconds = retry_after(value, NOW)

    assert seconds == expected
    assert seconds is None or math.isfinite(seconds)


@pytest.mark.parametrize("status", [429, 503])
def test_the_engines_advice_is_kept(status: int) -> None:
    told = refusal("engine", status, {"retry-after": "7"}, b"", NOW)
    untold = refusal("engine", status, {}, b"", NOW)

    assert isinstance(told, NotTaken)
    assert isinstance(untold, NotTaken)
    assert (told.retry_after_s, untold.retry_after_s) == (7.0, None)
