"""The last of what an engine printed: bounded, and without secrets."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Final

TAIL_LINES: Final = 200
TAIL_BYTES: Final = 64 * 1024
_LINE_BYTES: Final = 4096


class Tail:
    """The last lines of an engine's output: at most TAIL_LINES and TAIL_BYTES, secrets replaced."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._secrets = tuple(secrets)
        self._longest = max((len(secret) for secret in secrets), default=0)
        self._lines: collections.deque[str] = collections.deque()
        self._size_bytes = 0
        self._partial = b""
        self.seen_bytes = 0  # of output altogether

    def feed(self, data: bytes) -> None:
        """More output, cut anywhere."""
        self.seen_bytes += len(data)
        *whole, rest = (self._partial + data).split(b"\n")
        for line in whole:
            self._keep(line)
        # A line is cut only behind what a secret across the cut would need to be recognised.
        self._partial = rest[: _LINE_BYTES + self._longest]

    def lines(self) -> list[str]:
        """Oldest first; the last one may be unfinished."""
        if not self._partial:
            return list(self._lines)
        unfinished = self._readable(self._partial)
        for secret in self._secrets:
            # The rest of it may be on its way.
            cuts = (size for size in range(len(secret) - 1, 2, -1) if unfinished.endswith(secret[:size]))
            unfinished = unfinished[: len(unfinished) - next(cuts, 0)]
        return [*self._lines, unfinished]

    def _readable(self, line: bytes) -> str:
        text = line.decode("utf-8", "replace").rstrip("\r")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text[:_LINE_BYTES]

    def _keep(self, line: bytes) -> None:
        text = self._readable(line[: _LINE_BYTES + self._longest])
        self._lines.append(text)
        self._size_bytes += len(text)
        while len(self._lines) > TAIL_LINES or self._size_bytes > TAIL_BYTES:
            self._size_bytes -= len(self._lines.popleft())
