"""The log: one line per event, and what never gets into it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app.log import set_up


@pytest.fixture(autouse=True)
def _untouched() -> Iterator[None]:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def test_json_is_one_object_per_line() -> None:
    out = io.StringIO()
    set_up("json", "info", out)

    structlog.get_logger().info("engine ready", backend="gpu", seconds=1.5)

    line = json.loads(out.getvalue())
    assert line["event"] == "engine ready"
    assert (line["level"], line["backend"], line["seconds"]) == ("info", "gpu", 1.5)
    assert line["timestamp"].endswith("Z")


def test_lines_below_the_level_are_left_out() -> None:
    out = io.StringIO()
    set_up("json", "warning", out)

    structlog.get_logger().info("nothing")

    assert out.getvalue() == ""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_secret_is_starred_whoever_logs_it(log_format: str) -> None:
    out = io.StringIO()
    set_up("json" if log_format == "json" else "console", "info", out)

    structlog.get_logger().info("request", api_key="s3cret", prompt="s3cret", headers={"a": "s3cret"}, backend="gpu")

    assert "s3cret" not in out.getvalue()
    assert "gpu" in out.getvalue()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_shows_no_variables(log_format: str) -> None:
    out = io.StringIO()
    set_up("json" if log_format == "json" else "console", "info", out)

    try:
        prompt = "s3" + "cret"
        raise RuntimeError("a bug")
    except RuntimeError:
        structlog.get_logger().exception("failed", length=len(prompt))

    assert "RuntimeError: a bug" in out.getvalue()
    assert "s3cret" not in out.getvalue()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_the_standard_librarys_loggers_are_in_the_same_place(log_format: str) -> None:
    out = io.StringIO()
    set_up("json" if log_format == "json" else "console", "info", out)

    logging.getLogger("uvicorn.error").warning("something %s", "odd")

    assert "something odd" in out.getvalue()
    assert out.getvalue().count("\n") == 1


def test_a_reader_that_left_ends_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, text: str, /) -> int:
            raise BrokenPipeError

    set_up("json", "info", Gone())

    structlog.get_logger().info("nobody hears this")
    logging.getLogger("uvicorn.error").warning("nor this")
