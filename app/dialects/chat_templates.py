"""Which system messages a model's chat template takes, shown by having it render short conversations. Pure.

A template may leave a message out without a word, so each message has a marker that must appear in the rendering.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from app.dialects.tasks.llama_cpp import Step, step
from backends.endpoint import ModelFacts
from backends.engine_profile import TemplateApi

_LATE: Final = (("user", "system"), ("system", "user", "assistant", "system", "user"))
_SEVERAL: Final = ("system", "system", "user")
_FIRST: Final = ("system", "user")


class TemplateSupport(NamedTuple):
    """Of system messages: one at the beginning, several there, later ones."""

    first: bool = True
    several: bool = True
    late: bool = True


ALL: Final = TemplateSupport()
# Conversations go out; what comes back is a rendering, or None for one that was refused.
Asking = Generator[list[dict[str, str]], str | None, TemplateSupport | None]


class _Prompt(msgspec.Struct, frozen=True):
    prompt: str


class _Pieces(msgspec.Struct, frozen=True):
    token_strs: list[Any]


class _Debug(msgspec.Struct, frozen=True):
    rendered_template: str


class _Rendered(msgspec.Struct, frozen=True):
    info: _Debug = msgspec.field(name="_debug_info")


def asking(token: str) -> Asking:
    """Which system messages the template takes; None where that does not show. `token`: letters that occur nowhere."""
    if not (yield from _shows(token, ("user",))):
        return None
    late = True
    for roles in _LATE:
        late = late and (yield from _shows(token, roles))
    several = yield from _shows(token, _SEVERAL)
    first = late or several or (yield from _shows(token, _FIRST))
    return TemplateSupport(first=first, several=several, late=late and first)


def _shows(token: str, roles: Sequence[str]) -> Generator[list[dict[str, str]], str | None, bool]:
    """Whether such a conversation is rendered with all of what it says."""
    markers = [f"{token}{chr(ord('a') + at)}" for at in range(len(roles))]
    conversation = [{"role": role, "content": marker} for role, marker in zip(roles, markers, strict=True)]
    rendering = yield conversation
    return rendering is not None and all(marker in rendering for marker in markers)


def request(api: TemplateApi, model: str, messages: list[dict[str, str]], facts: ModelFacts | None) -> Step:
    """How an engine is asked to show what its template makes of these messages."""
    if api is TemplateApi.APPLY_TEMPLATE:
        return step("/apply-template", {"messages": messages})
    if api is TemplateApi.TOKENIZE:
        return step("/tokenize", {"model": model, "messages": messages, "return_token_strs": True})
    facts = facts or ModelFacts()
    # With what every request for the model is sent, or the daemon loads it anew. One that does not know the option
    # writes a single token.
    options = {"num_predict": 1} | ({"num_ctx": facts.num_ctx} if facts.num_ctx is not None else {})
    asked = {"model": model, "messages": messages, "stream": False, "shift": facts.shift, "options": options}
    stays = {"keep_alive": facts.keep_alive_s} if facts.keep_alive_s is not None else {}
    return step("/api/chat", {**asked, **stays, "_debug_render_only": True}, is_beside=False)


def rendering(api: TemplateApi, answer: bytes) -> str | None:
    """The text that the template made, as the engine's response has it; None where it holds none."""
    try:
        if api is TemplateApi.APPLY_TEMPLATE:
            return msgspec.json.decode(answer, type=_Prompt).prompt
        if api is TemplateApi.TOKENIZE:
            return "".join(map(str, msgspec.json.decode(answer, type=_Pieces).token_strs))
        return msgspec.json.decode(answer, type=_Rendered).info.rendered_template
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
