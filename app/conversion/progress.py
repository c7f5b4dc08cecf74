"""How long work tells how far it is."""

from __future__ import annotations

from typing import Protocol


class ProgressReport(Protocol):
    """Who is told how far a conversion is. Both are called from the thread that converts, and must not raise."""

    def step(self, text: str) -> None:
        """A new step begins; `text` says what is done, such as "writing the GGUF file"."""

    def bytes(self, done: int, total: int) -> None:
        """So many bytes of the step's output are written; `total` may change, and is never less than 1."""


class Unseen:
    """Fulfils ProgressReport where nobody looks."""

    def step(self, text: str) -> None:
        """Nobody is told."""

    def bytes(self, done: int, total: int) -> None:
        """Nobody is told."""
