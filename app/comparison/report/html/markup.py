"""HTML and SVG, escaped by construction: what is a plain text becomes text, whatever is in it. Pure.

Models' answers are in these pages. There is no way to write an attribute that could act (a link, a source, a style, a
handler), and none to write a tag that is not in the list.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

from app.comparison.report.sound_text import sound

_TAG_NAMES = """
article bdi body circle dd del details div dl dt h1 h2 h3 head header html ins li line main meta p pre rect section
small span strong summary svg table tbody td text th thead title tr ul
"""
_ATTRIBUTE_NAMES = """
aria-hidden aria-label charset class content cx cy dir focusable height http-equiv lang name r role scope text-anchor
width x x1 x2 y y1 y2
"""
_TAGS = frozenset(_TAG_NAMES.split())
_ATTRIBUTES = frozenset(_ATTRIBUTE_NAMES.split())
_POLICY = "Content-Security-Policy"  # the only thing that a page tells its browser to do
_EMPTY = frozenset({"meta", "circle", "line", "rect"})


@dataclass(frozen=True, slots=True)
class Markup:
    """A piece of a page; only this file makes it, out of texts that are escaped."""

    source: str


def tag(name: str, *children: str | Markup, **attributes: str) -> Markup:
    """An element. Names of attributes are written with `_` for `-`, and `class_` for `class`. ValueError for a name
    that is not in the lists.
    """
    named = {key.removesuffix("_").replace("_", "-"): value for key, value in attributes.items()}
    unknown = {name} - _TAGS | named.keys() - _ATTRIBUTES
    if named.get("http-equiv", _POLICY) != _POLICY:
        unknown.add(named["http-equiv"])
    if unknown:
        raise ValueError(f"not for a report: {', '.join(sorted(unknown))}")
    said = "".join(f' {key}="{html.escape(sound(value))}"' for key, value in named.items())
    if name in _EMPTY:
        return Markup(f"<{name}{said}>" if name == "meta" else f"<{name}{said}/>")
    # A line end at the beginning of a pre would be swallowed.
    start = "\n" if name == "pre" else ""
    return Markup(f"<{name}{said}>{start}{join(*children).source}</{name}>")


def join(*pieces: str | Markup) -> Markup:
    """The pieces one after the other, texts escaped."""
    return Markup("".join(piece.source if isinstance(piece, Markup) else html.escape(sound(piece)) for piece in pieces))


def style(source: str) -> Markup:
    """The one style sheet, as it is; ValueError for one that could end its element."""
    if "<" in source:
        raise ValueError("a style sheet has no '<'")
    return Markup(f"<style>{source}</style>")
