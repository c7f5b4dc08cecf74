"""Where two texts differ first, in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_AROUND: Final = 24  # characters that are shown before the place, and after it


def difference(one: str, other: str) -> str | None:
    """The first place where two texts differ, with what stands there in each; None where they are equal."""
    if one == other:
        return None
    pairs = enumerate(zip(one, other, strict=False))
    at = next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))
    return f"at character {at}: {_excerpt(one, at)}, not {_excerpt(other, at)}"


def _excerpt(text: str, at: int) -> str:
    start, end = max(0, at - _AROUND), at + _AROUND
    shown = text[start:end]
    return ("…" if start else "") + repr(shown) + ("…" if end < len(text) else "")


def differing(expected: Mapping[str, str], rendered: Mapping[str, str], refused: Mapping[str, str]) -> dict[str, str]:
    """How each chat that is not rendered as expected differs, by its name: what is expected comes first."""
    result = {}
    for name, text in expected.items():
        if name not in rendered:
            result[name] = f"it is refused: {refused.get(name, 'there is no chat template')}"
        elif rendered[name] != text:
            result[name] = str(difference(text, rendered[name]))
    return result
