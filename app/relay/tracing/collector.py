"""The way to a collector: one POST for each batch of spans, from a thread of its own. Blocking, never retried here."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from app.table import Tracing

# OTLP's: the collector may take the same batch later.
_LATER: Final = frozenset({429, 502, 503, 504})
_MOST_READ: Final = 64 * 1024
_LONGEST_AFTER_S: Final = 3600.0  # what a collector may ask us to wait


class Delivery(NamedTuple):
    """What became of a batch. `trouble`: why the collector does not have it, empty where it has. `may_retry`: it may
    have it later. `after_s`: not before so many seconds."""

    trouble: str = ""
    may_retry: bool = False
    after_s: float = 0.0


class TraceCollector:
    """Where spans are sent: any receiver of OTLP over HTTP. `settings`: see `Tracing`."""

    def __init__(self, settings: Tracing) -> None:
        self._settings = settings
        self._url = urlsplit(settings.url)
        self._tls: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"<TraceCollector {self.name}>"

    @property
    def name(self) -> str:
        """Its address, without what may be secret in it."""
        return f"{self._url.scheme}://{self._url.netloc.rpartition('@')[2]}{self._url.path}"

    def send(self, batch: bytes, timeout_s: float) -> Delivery:
        """Hand a batch over; never raises for what a network can do. Blocks for `timeout_s` at most to connect, and as
        long again for the rest.
        """
        headers = {"content-type": "application/x-protobuf", "user-agent": "modelport", **self._settings.headers}
        if self._settings.compression == "gzip":
            batch, headers["content-encoding"] = gzip.compress(batch, 1), "gzip"
        path = f"{self._url.path or '/'}{'?' if self._url.query else ''}{self._url.query}"
        ends_at = time.monotonic() + timeout_s
        try:
            with contextlib.closing(self._connection(timeout_s)) as connection:
                connection.connect()
                ends_at = time.monotonic() + timeout_s
                with _cut_after(timeout_s, connection.sock):
                    connection.request("POST", path, batch, headers)
                    response = connection.getresponse()
                    with contextlib.suppress(OSError, http.client.HTTPException):  # it has said what became of it
                        response.read(_MOST_READ)
        except (OSError, http.client.HTTPException) as exc:
            late = time.monotonic() >= ends_at
            return Delivery(_in_words(TimeoutError() if late else exc), may_retry=True)
        except ValueError as exc:  # a name or a header that no network can carry
            return Delivery(f"its address or headers cannot be used ({type(exc).__name__})")
        if response.status in _LATER:
            return Delivery(f"it answered {response.status}", True, _seconds(response.getheader("retry-after")))
        return Delivery() if 200 <= response.status < 300 else Delivery(f"it answered {response.status}")

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme != "https":
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=self._settings.certificate)
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._tls)


@contextlib.contextmanager
def _cut_after(seconds: float, connected: socket.socket) -> Iterator[None]:
    """Cut the connection when this takes longer: an answer that comes byte by byte is within every single wait."""

    def cut() -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connected, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _in_words(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "it did not answer in time"
    if isinstance(exc, socket.gaierror):
        return "its name is not known"
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return text or type(exc).__name__


def _seconds(retry_after: str | None) -> float:
    """A date, or anything else that is no number, counts as not given."""
    is_number = retry_after is not None and retry_after.isascii() and retry_after.isdecimal()
    return min(float(retry_after or 0), _LONGEST_AFTER_S) if is_number else 0.0
