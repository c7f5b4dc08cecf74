"""What ends a conversion: a sentence for the user, with what helps."""

from __future__ import annotations


class ConversionError(Exception):
    """The folder or file cannot be converted, merged or quantised; the message is one sentence."""


class FolderProblem(ConversionError):
    """A folder is not one that can be converted: what is wrong with it, and what helps."""
