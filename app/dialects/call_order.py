"""Deltas in an order in which each tool call comes in one go. Pure.

Engines may alternate between the parts of parallel calls, and write text between them. Anthropic's messages have one
open block at a time: a call stays open until its arguments are whole, and what comes meanwhile waits.
"""

from __future__ import annotations

from typing import Any

import msgspec

from backends.http.delta import CallDelta, Delta

# How often the arguments of one call are decoded to see whether they are whole; after that the others wait for the end.
MAX_LOOKS = 16


class OrderedPart(msgspec.Struct, frozen=True):
    """One of three: thinking, text with its log probabilities, or a part of a call."""

    thinking: str = ""
    text: str = ""
    logprobs: list[dict[str, Any]] | None = None
    call: CallDelta | None = None


class CallOrderer:
    """The order of one response."""

    def __init__(self) -> None:
        self._open: int | None = None  # the call that is being written; None: text, or nothing yet
        self._arguments: list[str] = []  # of the open call, until now
        self._looks = 0
        self._waiting: dict[int | None, list[OrderedPart]] = {}  # by call, in the order in which they began; None: text

    def next(self, delta: Delta) -> list[OrderedPart]:
        """What can be written now, in this order."""
        out: list[OrderedPart] = []
        if delta.thinking:
            self._add(OrderedPart(thinking=delta.thinking), out)
        if delta.text or delta.logprobs:
            self._add(OrderedPart(text=delta.text or "", logprobs=delta.logprobs), out)
        for call in delta.calls:
            self._add(OrderedPart(call=call), out)
        return out

    def rest(self) -> list[OrderedPart]:
        """The response is over: everything that still waits."""
        return [part for parts in self._waiting.values() for part in parts]

    def _add(self, part: OrderedPart, out: list[OrderedPart]) -> None:
        at = part.call.at if part.call is not None else None
        if at == self._open:
            self._write(part, out)
        else:
            self._waiting.setdefault(at, []).append(part)
        while self._waiting and (self._open is None or self._is_whole()):
            self._open = next(iter(self._waiting))
            self._arguments, self._looks = [], 0
            for each in self._waiting.pop(self._open):
                self._write(each, out)

    def _write(self, part: OrderedPart, out: list[OrderedPart]) -> None:
        out.append(part)
        if part.call is not None and part.call.arguments:
            self._arguments.append(part.call.arguments)

    def _is_whole(self) -> bool:
        """Whether the open call has all of its arguments."""
        if self._looks == MAX_LOOKS or not self._arguments or not self._arguments[-1].rstrip().endswith("}"):
            return False
        self._looks += 1
        try:
            msgspec.json.decode("".join(self._arguments), type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            return False
        return True
