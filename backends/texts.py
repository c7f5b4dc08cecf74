"""Texts that become one: the parts of a message, the blocks of a result, the pages of a document."""

from __future__ import annotations

from collections.abc import Iterable


def joined(texts: Iterable[str]) -> str:
    """One text, each part on lines of its own, as vLLM does with a message's parts where a template takes text only.

    Put together without anything between, "count: 12" and "34 rows" would say "count: 1234 rows".
    """
    return "\n".join(text for text in texts if text)
