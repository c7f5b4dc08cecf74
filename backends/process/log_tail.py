"""The last lines that an engine printed: bounded in size, and without secrets."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

TAIL_LINES: Final = 200
TAIL_BYTES: Final = 64 * 1024
_LINE_BYTES: Final = 4096


class Printed(NamedTuple):
    """How many whole lines a process has printed, and whether it has begun one more: `lines` ends with that."""

    whole: int = 0
    has_more: bool = False


class LogTail:
    """The last lines of an engine's output: at most TAIL_LINES and TAIL_BYTES. `secrets` are replaced by `***`."""

    def __init__(self, secrets: Sequence[str] = (), now: Callable[[], float] = time.monotonic) -> None:
        self._secrets = tuple(secrets)
        self._longest = max((len(secret) for secret in secrets), default=0)
        self._now = now
        self._lines: collections.deque[tuple[float, str]] = collections.deque()  # each with the time when it came
        self._size_bytes = 0
        self._partial = b""
        self.seen_bytes = 0  # of output altogether
        self._whole = 0  # lines altogether

    def feed(self, data: bytes) -> None:
        """Take more output; it may end anywhere in a line."""
        self.seen_bytes += len(data)
        *whole, rest = (self._partial + data).split(b"\n")
        for line in whole:
            self._keep(line)
        # A line is cut only behind what a secret across the cut would need to be recognised.
        self._partial = rest[: _LINE_BYTES + self._longest]

    def lines(self, within_s: float | None = None) -> list[str]:
        """The lines, oldest first; the last one may be unfinished. `within_s`: only those of so many last seconds."""
        since = self._now() - within_s if within_s is not None else 0.0
        whole = [text for came_at, text in self._lines if came_at >= since]
        if not self._partial:
            return whole
        unfinished = self._readable(self._partial)
        for secret in self._secrets:
            # The rest of it may be on its way.
            cuts = (size for size in range(len(secret) - 1, 2, -1) if unfinished.endswith(secret[:size]))
            unfinished = unfinished[: len(unfinished) - next(cuts, 0)]
        return [*whole, unfinished]

    def printed(self) -> Printed:
        """How much it is altogether, with what is not kept any more."""
        return Printed(self._whole, bool(self._partial))

    def _readable(self, line: bytes) -> str:
        text = line.decode("utf-8", "replace").rstrip("\r")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text[:_LINE_BYTES]

    def _keep(self, line: bytes) -> None:
        self._whole += 1
        text = self._readable(line[: _LINE_BYTES + self._longest])
        self._lines.append((self._now(), text))
        self._size_bytes += len(text)
        while len(self._lines) > TAIL_LINES or self._size_bytes > TAIL_BYTES:
            self._size_bytes -= len(self._lines.popleft()[1])
