"""What ends a conversion: a sentence for the user, with what helps."""

from __future__ import annotations


class ConversionError(Exception):
    """The folder or file cannot be converted, merged or quantised; the message is one sentence."""


class FolderProblem(ConversionError):
    """A folder is not one that can be converted: what is wrong with it, and what helps."""


class NoPlace(ConversionError):
    """What is made has no room where it is to go, or nothing can be written there.

    `problem`: that much alone. The whole sentence says what `modelport convert` can do; `elsewhere` says what another
    command can.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}, or name another place with --out")
        self.problem = problem

    def elsewhere(self, way: str) -> str:
        """The sentence, with another way out."""
        return f"{self.problem}, or {way}"
