"""One line per event, on standard error: for people (`console`) or for machines (`json`). Never prompts, never keys."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog

from app.log_format import LogFormat

# A field of one of these names is starred, whoever logs it: the second line of defence behind "do not log it".
SECRET_FIELDS = frozenset(
    {
        "api_key",
        "authorization",
        "body",
        "content",
        "cookie",
        "headers",
        "key",
        "messages",
        "password",
        "prompt",
        "token",
    }
)


class _Stream:
    """A text stream whose reader may leave: a closed terminal or pipe loses lines, never the process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return not self._stream.closed and self._stream.isatty()


def star_secrets(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> Mapping[str, Any] | str | bytes | bytearray | tuple[Any, ...]:
    """The event with the values of secret fields replaced by stars."""
    for field in SECRET_FIELDS & event.keys():
        event[field] = "***"
    return event


def set_up(log_format: LogFormat, level: str, stream: TextIO | None = None) -> None:
    """Make structlog and the standard library's loggers write to `stream` (default: standard error) from now on."""
    out = _Stream(stream if stream is not None else sys.stderr)
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        # A person at a terminal wants their own clock; machines want an unambiguous one.
        structlog.processors.TimeStamper(fmt="iso", utc=True)
        if log_format == "json"
        else structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        star_secrets,
    ]
    last: list[structlog.typing.Processor]
    if log_format == "json":
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # Rich's tracebacks, structlog's default, print every local variable: prompts and keys among them.
        last = [
            structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback),
        ]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=out),  # type: ignore[arg-type]  # it only writes and flushes
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[_drop_meta, *last]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))


def _drop_meta(
    logger: object, method: str, event: MutableMapping[str, Any]
) -> Mapping[str, Any] | str | bytes | bytearray | tuple[Any, ...]:
    return structlog.stdlib.ProcessorFormatter.remove_processors_meta(logger, method, event)
