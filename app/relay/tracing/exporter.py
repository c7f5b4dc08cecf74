"""Finished spans on their way to the collector: gathered for a few seconds, then sent from a thread of its own, so that
the event loop never waits for a collector, and the log hears once, not for every batch, that one is dead.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from app.relay.tracing.collector import Delivery

log = structlog.get_logger()

MAX_WAITING_BYTES: Final = 8 * 1024 * 1024  # of encoded spans, for a collector that is slow or gone
BATCH_BYTES: Final = 1024 * 1024
LONGEST_PAUSE_S: Final = 60.0
FLUSH_S: Final = 3.0  # at the end, when nobody may wait long for a collector


class SpanExporter:
    """Hands pieces (the encoded spans of one request each) to `send` in batches: every `interval_s`, or as soon as a
    batch is full. `send` is called in the exporter's thread, with a batch and the seconds that it may take.

    What a collector cannot take now is kept and sent again at growing intervals; beyond MAX_WAITING_BYTES the oldest
    go. `name`: what the log calls the collector.
    """

    def __init__(
        self, name: str, send: Callable[[list[bytes], float], Delivery], interval_s: float, timeout_s: float
    ) -> None:
        self._name = name
        self._send = send
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._lock = threading.Lock()  # over the next three
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost = 0  # pieces that the collector will never have
        self._failures = 0  # in a row
        self._is_closing = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<SpanExporter {self._name} waiting_bytes={self._waiting_bytes}>"

    def offer(self, piece: bytes) -> None:
        """Send this with the next batch. Never blocks on the collector."""
        with self._lock:
            self._waiting.append(piece)
            self._waiting_bytes += len(piece)
            self._trim()
        if self._waiting_bytes >= BATCH_BYTES and not self._failures:
            self._wake.set()

    def close(self, wait_s: float = FLUSH_S) -> None:
        """Send what there is, once, and end. Blocks for `wait_s` at most."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(wait_s)

    # -- in the thread

    def _run(self) -> None:
        due = time.monotonic() + self._interval_s
        while True:
            self._wake.wait(max(0.0, due - time.monotonic()))
            self._wake.clear()
            if self._is_closing:
                break
            # Whoever has just failed is left alone until the time has come.
            if not self._failures or time.monotonic() >= due:
                due = time.monotonic() + self._deliver(self._timeout_s)
        self._deliver(FLUSH_S)

    def _deliver(self, timeout_s: float) -> float:
        """Send all that waits, a batch at a time, until one is not taken. Returns the seconds until the next time."""
        while batch := self._batch():
            try:
                delivery = self._send(batch, timeout_s)
            except Exception as exc:  # noqa: BLE001  # the top of the thread: all later batches would stay
                delivery = Delivery(f"it cannot be sent ({type(exc).__name__})")
            if delivery.trouble:
                self._failed(batch, delivery)
                return max(min(self._interval_s * 2.0**self._failures, LONGEST_PAUSE_S), delivery.after_s)
            self._succeeded()
        return self._interval_s

    def _batch(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        with self._lock:
            while self._waiting and size < BATCH_BYTES:
                batch.append(self._waiting.popleft())
                size += len(batch[-1])
            self._waiting_bytes -= size
        return batch

    def _failed(self, batch: list[bytes], delivery: Delivery) -> None:
        with self._lock:
            if delivery.may_retry:
                self._waiting.extendleft(reversed(batch))
                self._waiting_bytes += sum(map(len, batch))
                self._trim()
            else:
                self._lost += len(batch)
        if not self._failures:
            log.warning("traces are not delivered", collector=self._name, reason=delivery.trouble)
        self._failures = min(self._failures + 1, 16)

    def _succeeded(self) -> None:
        if self._failures:
            log.info("traces are delivered again", collector=self._name, lost_requests=self._lost)
        self._failures = self._lost = 0

    def _trim(self) -> None:
        while self._waiting_bytes > MAX_WAITING_BYTES:
            self._waiting_bytes -= len(self._waiting.popleft())
            self._lost += 1
