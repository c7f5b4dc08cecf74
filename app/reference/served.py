"""Which chat template is served in place of the tokenizer's: one that says what was trained, or as much as can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from app.reference.chats import CHATS
from app.reference.differences import differing
from app.reference.jinja_builder import chat_template
from app.reference.tool_formats import NotExpressible

WITH_TOOLS = frozenset(name for name, chat in CHATS.items() if chat.tools)
# What a chat template makes of each chat: {"rendered": …, "refused": …} by the chats' names.
Rendering = Callable[[str], Mapping[str, Any]]


def served(
    described: Mapping[str, Any], expected: Mapping[str, str], rendering: Rendering
) -> tuple[str, dict[str, str]]:
    """A chat template that makes of every chat what is expected. Where only chats with tools differ, one that refuses
    tools, and how each of them would have differed. Raises NotExpressible with the first difference.
    """
    lost: dict[str, str] = {}
    for with_tools in (True, False):
        try:
            source = chat_template(described, with_tools=with_tools)
        except NotExpressible as exc:
            lost = lost or dict.fromkeys(sorted(WITH_TOOLS & expected.keys()), str(exc))
            continue
        made = rendering(source)
        differences = differing(expected, made["rendered"], made["refused"])
        if not differences:
            return source, {}
        if not with_tools and differences.keys() <= WITH_TOOLS:
            return source, lost
        lost = differences
    raise NotExpressible(first(lost) or "for no chat")


def first(differences: Mapping[str, str]) -> str | None:
    """The first difference, with the chat's name."""
    return next((f"in the chat {name!r} {how}" for name, how in differences.items()), None)
