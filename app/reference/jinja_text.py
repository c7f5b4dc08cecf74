"""Small pieces of Jinja source that three engines read alike: transformers', llama.cpp's and Ollama's. Pure.

Everything stands in statements and expressions that strip what is around them, so the source can be indented. Literals
hold no raw line break.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_PLACE = "{{content}}"
_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def literal(text: str) -> str:
    """A text as a literal."""
    return "'" + "".join(_ESCAPES.get(letter, letter) for letter in text) + "'"


def say(*expressions: str) -> str:
    """A statement that puts texts into the prompt, one after the other; empty where there is nothing to say."""
    kept = [one for one in expressions if one != "''"]
    return "{{- " + " + ".join(kept) + " -}}" if kept else ""


def put(name: str, expression: str) -> str:
    """A statement that gives a variable its value."""
    return f"{{%- set {name} = {expression} -%}}"


def when(*branches: tuple[str, Iterable[str]], otherwise: Iterable[str] = ()) -> list[str]:
    """Lines that choose: (condition, lines) each, and what is done where none holds."""
    lines: list[str] = []
    for at, (condition, inner) in enumerate(branches):
        lines += [f"{{%- {'elif' if at else 'if'} {condition} -%}}", *indented(inner)]
    other = list(otherwise)
    return [*lines, *(["{%- else -%}", *indented(other)] if other else []), "{%- endif -%}"]


def each(name: str, expression: str, inner: Iterable[str]) -> list[str]:
    """Lines that are done for each item."""
    return [f"{{%- for {name} in {expression} -%}}", *indented(inner), "{%- endfor -%}"]


def refuse(text: str) -> str:
    """A statement that ends the rendering with an error, which a client is told."""
    return "{{- raise_exception(" + literal(text) + ") -}}"


def indented(lines: Iterable[str]) -> list[str]:
    """Lines one step further in; empty ones are left out."""
    return [f"  {line}" for line in lines if line]


def slots(parts: Sequence[Any], special: Mapping[str, str | None], content: str | None) -> list[str]:
    """The expressions that one of LLaMA-Factory's lists of slots stands for: texts with a place for the content, tokens
    by name, and the tokenizer's first and last token (`special`), which may be missing.
    """
    expressions: list[str] = []
    for part in parts:
        if isinstance(part, Mapping):
            text = special.get(part["special"]) if "special" in part else part["token"]
            expressions += [literal(text)] if text else []
            continue
        before, place, after = str(part).partition(_PLACE)
        expressions += [literal(before)] if before else []
        expressions += [content] if place and content is not None else []
        expressions += [literal(after)] if after else []
    return expressions
