"""Chunks of a stream made safe for every SDK: what is missing is filled in, what is said twice is said once. Pure.

What an engine already writes well is not touched; the table of what is mended is in docs/wire.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from app.dialects.error_text import one_line
from app.dialects.openai.completion_logprobs import Offsets, as_lists
from app.dialects.openai.tool_calls import ToolCalls
from app.dialects.reasoning import Reasoning, Splitter, give_both, splitter
from backends.errors import Broken, EngineFailed
from backends.finish_reasons import CUT, is_unset
from backends.finish_reasons import finish as ended
from backends.prompt_too_long import failed

GAVE_UP: Final = "it gave the answer up"
OBJECTS: Final = {
    "chat": "chat.completion.chunk",
    "text_completion": "text_completion",
    "transcription": "transcription.chunk",
}
_WITH_DELTAS: Final = ("chat", "transcription")


class ResponseContext(msgspec.Struct, frozen=True):
    """One request, as far as its answer must fit it. `name` is the client's for the model; `token` and `created` (Unix
    seconds) are what is made an id and a time of where the engine gives none. `reports`: how many answers tell their
    own cost, `copies` of them to each prompt.
    """

    engine: str
    name: str
    operation: str
    token: str
    created: int
    reasoning: Reasoning = "keep"
    reports: int = 1
    copies: int = 1

    @property
    def id(self) -> str:
        """An id for the answer."""
        return f"{'chatcmpl' if self.operation == 'chat' else 'cmpl'}-{self.token}"


@dataclass(slots=True)
class _Choice:
    """What has been said of one choice."""

    calls: ToolCalls
    splitter: Splitter | None
    has_role: bool = False
    is_finished: bool = False
    offsets: Offsets = field(default_factory=Offsets)


@dataclass(slots=True)
class Normalizer:
    """One stream. Whether every choice has ended is told by `finished` and `is_open`.

    `is_held`: text of the latest chunk was kept back, as it may be part of a tag.
    """

    terms: ResponseContext
    is_held: bool = False
    _choices: dict[int, _Choice] = field(default_factory=dict)
    _first: dict[str, Any] = field(default_factory=dict)  # id, object and created: the first ones, for the whole stream
    _invented: set[str] = field(default_factory=set)

    @property
    def finished(self) -> int:
        """How many choices have their finish_reason."""
        return sum(choice.is_finished for choice in self._choices.values())

    @property
    def is_open(self) -> bool:
        """Whether a choice has begun and not ended."""
        return any(not choice.is_finished for choice in self._choices.values())

    @property
    def is_settled(self) -> bool:
        """Whether later events are mended without looking at what was before them: no tag is waited for, no arguments,
        and nothing is counted."""
        return all(
            (choice.splitter is None or choice.splitter.is_over)
            and not choice.offsets.is_begun
            and choice.calls.is_settled
            for choice in self._choices.values()
        )

    def normalize(self, chunk: dict[str, Any]) -> bool:
        """Put one chunk right; whether anything changed. EngineFailed for an error, Broken for what is no chunk."""
        self.is_held = False
        said = failure(chunk)
        if said is not None:
            raise failed(self.terms.engine, chunk, said)
        try:
            is_headed = self._head(chunk)
            return self._body(chunk) or is_headed
        except ValueError as exc:
            raise Broken(self.terms.engine, f"it sent {exc}") from exc

    def _head(self, chunk: dict[str, Any]) -> bool:
        """One id, object and time for all chunks: the engine's first ones, or ours."""
        is_changed = False
        for name, kind in (("id", str), ("object", str), ("created", int)):
            value = chunk.get(name)
            if type(value) is kind and value and name not in self._invented:
                self._first.setdefault(name, value)
                continue
            if name not in self._first:
                self._first[name] = self._invent(name)
                self._invented.add(name)
            chunk[name] = self._first[name]
            is_changed = True
        if not isinstance(chunk.get("model"), str) or not chunk["model"]:
            chunk["model"] = self.terms.name
            is_changed = True
        return is_changed

    def _invent(self, name: str) -> Any:
        terms = self.terms
        return {"id": terms.id, "created": terms.created, "object": OBJECTS.get(terms.operation, "")}[name]

    def _body(self, chunk: dict[str, Any]) -> bool:
        given = chunk.get("choices")
        choices = listed(given)
        is_chat = self.terms.operation in _WITH_DELTAS
        is_changed = choices is not given
        for at, choice in enumerate(choices):
            index = choice.get("index")
            if type(index) is not int:
                choice["index"] = index = number(index, at)
                is_changed = True
            state = self._choices.get(index)
            if state is None:
                reasoning = self.terms.reasoning if is_chat else "keep"
                state = self._choices[index] = _Choice(ToolCalls(self.terms.token), splitter(reasoning))
            is_said = self._delta(choice, state) if is_chat else _text(choice, state.offsets)
            is_ended = self._finish(choice, state)
            is_changed = is_changed or is_said or is_ended
        if is_changed:
            chunk["choices"] = choices
        return is_changed

    def _delta(self, choice: dict[str, Any], state: _Choice) -> bool:
        delta, is_changed = choice.get("delta"), False
        if not isinstance(delta, dict):
            if delta is not None:
                raise ValueError("a delta that is none")
            # Some send a message, or the text of a completion.
            message = choice.pop("message", None)
            delta = message if isinstance(message, dict) else {}
            if isinstance(choice.get("text"), str):
                delta.setdefault("content", choice.pop("text"))
            choice["delta"], is_changed = delta, True
        if not state.has_role:
            state.has_role = True
            if delta.get("role") != "assistant":
                delta["role"] = "assistant"
                is_changed = True
        elif "role" in delta:  # openai-python would put "assistantassistant" together
            del delta["role"]
            is_changed = True
        content = delta.get("content")
        if not isinstance(content, str | None):
            delta["content"] = flat(content)
            is_changed = True
        if delta.get("tool_calls") is not None or delta.get("function_call") is not None:
            is_changed = state.calls.normalize(delta) or is_changed
        if state.splitter is not None and not state.splitter.is_over:
            has_content = bool(delta.get("content"))
            is_changed = _split(delta, state.splitter) or is_changed
            self.is_held = self.is_held or (has_content and not delta.get("content") and not delta.get("reasoning"))
        return give_both(delta) or is_changed

    def _finish(self, choice: dict[str, Any], state: _Choice) -> bool:
        finish = choice.get("finish_reason")
        if is_unset(finish) or state.is_finished:
            is_right = finish is None and "finish_reason" in choice
            choice["finish_reason"] = None
            return not is_right
        said = ended(finish)
        if said is None:
            raise EngineFailed(self.terms.engine, GAVE_UP)
        choice["finish_reason"] = said
        state.is_finished = True
        is_changed = bool(said != finish)
        if self.terms.operation in _WITH_DELTAS:
            is_changed = state.calls.end(choice["delta"], is_cut=said in CUT) or is_changed
        if state.splitter is None:
            return is_changed
        return _say(choice["delta"], *state.splitter.end()) or is_changed


def failure(value: dict[str, Any]) -> str | None:
    """What an error says, wherever in an answer it stands; None for an answer that is none."""
    error, choices = value.get("error"), value.get("choices")
    if error or (error is not None and choices is None):
        if isinstance(error, str | dict | list):
            return one_line(error)
        return one_line({name: inner for name, inner in value.items() if name != "error"})
    if value.get("object") == "error" or (
        choices is None and any(name in value for name in ("detail", "message", "msg", "errors"))
    ):
        return one_line(value.get("errors") or value)
    for choice in choices if isinstance(choices, list) else ():
        for place in ("delta", "message", None) if isinstance(choice, dict) else ():
            inner = choice if place is None else choice.get(place)
            if isinstance(inner, dict) and inner.get("error"):
                return one_line(inner["error"])
    return None


def listed(choices: Any) -> list[dict[str, Any]]:
    """Choices as a list of objects, the same list when they are one; ValueError for what cannot be read as that."""
    if choices is None:
        return []
    found = [choices] if isinstance(choices, dict) else choices
    if isinstance(found, list) and None in found:
        found = [choice for choice in found if choice is not None]
    if not isinstance(found, list) or not all(isinstance(choice, dict) for choice in found):
        raise ValueError("choices that are none")
    return found


def number(index: Any, at: int) -> int:
    """The number of a choice that does not state it as one; `at` is its place in the list."""
    if isinstance(index, float) and index.is_integer():
        return int(index)
    return int(index) if isinstance(index, str) and index.isdecimal() and len(index) < 5 else at


def flat(content: Any) -> str:
    """The text of content that is a list of parts; ValueError where there is something else in it."""
    parts = content if isinstance(content, list) else [content]
    texts: list[str] = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise ValueError("content that is no text")
        texts.append(text)
    return "".join(texts)


def _text(choice: dict[str, Any], offsets: Offsets) -> bool:
    """Of a text completion."""
    text, is_listed = choice.get("text"), as_lists(choice, offsets)
    if isinstance(text, str):
        return is_listed
    said = choice.pop("delta", None) or choice.pop("message", None)
    if text is None and isinstance(said, dict):
        text = said.get("content")
    choice["text"] = "" if text is None else flat(text)
    return True


def _split(delta: dict[str, Any], split: Splitter) -> bool:
    """Thinking out of the text, unless the engine tells them apart itself."""
    if delta.get("reasoning") or delta.get("reasoning_content"):
        return _say(delta, *split.end())
    content = delta.get("content")
    if not content:
        return False
    thinking, text = split.feed(content)
    if text == content:
        return False
    delta["content"] = ""
    _say(delta, thinking, text)
    return True


def _say(delta: dict[str, Any], thinking: str, text: str) -> bool:
    """Add to what a delta says."""
    if text:
        delta["content"] = (delta.get("content") or "") + text
    if thinking:
        delta["reasoning"] = delta["reasoning_content"] = (delta.get("reasoning") or "") + thinking
    return bool(text or thinking)
