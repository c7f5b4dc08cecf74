"""What an answer says, in an order in which each tool call is told in one go. Pure.

Engines may alternate between the parts of parallel calls, and write text between them. Other dialects have one open
block at a time: a call that is open stays open until its arguments are whole, and what comes meanwhile waits.
"""

from __future__ import annotations

from typing import Any

import msgspec

from backends.http.delta import CallDelta, Delta

# How often the arguments of one call are decoded to see whether they are whole; after that the others wait for the end.
MAX_LOOKS = 16


class OrderedPart(msgspec.Struct, frozen=True):
    """Thinking, text (with its log probabilities), or a part of a call: one of them."""

    thinking: str = ""
    text: str = ""
    logprobs: list[dict[str, Any]] | None = None
    call: CallDelta | None = None


class CallOrderer:
    """One answer."""

    def __init__(self) -> None:
        self._open: int | None = None  # the call that is being told; None: text, or nothing yet
        self._told: list[str] = []  # its arguments until now
        self._looks = 0
        self._waiting: dict[int | None, list[OrderedPart]] = {}  # by call, in the order in which they began; None: text

    def next(self, delta: Delta) -> list[OrderedPart]:
        """What can be told now."""
        out: list[OrderedPart] = []
        if delta.thinking:
            self._add(OrderedPart(thinking=delta.thinking), out)
        if delta.text or delta.logprobs:
            self._add(OrderedPart(text=delta.text or "", logprobs=delta.logprobs), out)
        for call in delta.calls:
            self._add(OrderedPart(call=call), out)
        return out

    def rest(self) -> list[OrderedPart]:
        """The answer is over: all that has waited."""
        return [part for parts in self._waiting.values() for part in parts]

    def _add(self, part: OrderedPart, out: list[OrderedPart]) -> None:
        at = part.call.at if part.call is not None else None
        if at == self._open:
            self._tell(part, out)
        else:
            self._waiting.setdefault(at, []).append(part)
        while self._waiting and (self._open is None or self._is_whole()):
            self._open = next(iter(self._waiting))
            self._told, self._looks = [], 0
            for each in self._waiting.pop(self._open):
                self._tell(each, out)

    def _tell(self, part: OrderedPart, out: list[OrderedPart]) -> None:
        out.append(part)
        if part.call is not None and part.call.arguments:
            self._told.append(part.call.arguments)

    def _is_whole(self) -> bool:
        """Whether the open call has all of its arguments."""
        if self._looks == MAX_LOOKS or not self._told or not self._told[-1].rstrip().endswith("}"):
            return False
        self._looks += 1
        try:
            msgspec.json.decode("".join(self._told), type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            return False
        return True
