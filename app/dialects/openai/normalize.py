"""Chunks of a stream, and whole responses, made safe for every SDK: what is missing is filled in, what comes twice is
passed on once. Pure.

What an engine already writes well is not touched; docs/wire.md lists everything that is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from app.dialects.error_text import one_line
from app.dialects.openai import finite
from app.dialects.openai.completion_logprobs import Offsets, as_lists
from app.dialects.openai.tool_calls import ToolCalls, fill_arguments, normalize_whole
from app.dialects.reasoning import Reasoning, Splitter, give_both, splitter
from backends.errors import Broken, EngineFailed
from backends.finish_reasons import CUT, finish, is_unset
from backends.prompt_too_long import failed

GAVE_UP: Final = "it gave the answer up"
# OpenAI's `object` by operation: of a stream's chunks, and of whole responses.
CHUNKS: Final = {
    "chat": "chat.completion.chunk",
    "text_completion": "text_completion",
    "transcription": "transcription.chunk",
}
_WHOLE: Final = {"chat": "chat.completion", "text_completion": "text_completion"}
_WITH_DELTAS: Final = ("chat", "transcription")


class ResponseContext(msgspec.Struct, frozen=True):
    """What a response must fit: the request that it answers.

    `name` is the client's for the model. `token` and `created` (Unix seconds): what an id and a time are made of where
    the engine gives none. `reports`: how many reports of usage an engine sends, `copies` of them for each prompt.
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
        """An id for the response."""
        return f"{'chatcmpl' if self.operation == 'chat' else 'cmpl'}-{self.token}"


class _Normalizer:
    """What a stream's chunks and a whole response have in common."""

    def __init__(self, context: ResponseContext, objects: Mapping[str, str]) -> None:
        self._context = context
        self._object = objects.get(context.operation, "")
        self._first: dict[str, Any] = {}  # id, object and created: the first ones, for all chunks
        self._invented: set[str] = set()

    def normalize(self, value: dict[str, Any]) -> bool:
        """Put a chunk or a whole response right, in place; whether anything changed.

        EngineFailed for an error in its place, Broken for what is neither.
        """
        error = failure(value)
        if error is not None:
            raise failed(self._context.engine, value, error)
        try:
            is_headed = self._head(value)
            return self._body(value) or is_headed
        except ValueError as exc:
            raise Broken(self._context.engine, f"it sent {exc}") from exc

    def _head(self, value: dict[str, Any]) -> bool:
        """One id, object and time for all chunks: the engine's first ones, or ours."""
        is_changed = False
        for name, kind in (("id", str), ("object", str), ("created", int)):
            given = value.get(name)
            if type(given) is kind and given and name not in self._invented:
                self._first.setdefault(name, given)
                continue
            if name not in self._first:
                self._first[name] = self._invent(name)
                self._invented.add(name)
            value[name] = self._first[name]
            is_changed = True
        if not isinstance(value.get("model"), str) or not value["model"]:
            value["model"] = self._context.name
            is_changed = True
        return is_changed

    def _invent(self, name: str) -> Any:
        context = self._context
        return {"id": context.id, "created": context.created, "object": self._object}[name]

    def _body(self, value: dict[str, Any]) -> bool:
        given = value.get("choices")
        choices = listed(given)
        is_changed = choices is not given
        for at, choice in enumerate(choices):
            if not finite.are_numbers(choice.get("logprobs")):
                raise finite.failed(self._context.engine)
            index = choice.get("index")
            if type(index) is not int:
                choice["index"] = index = number(index, at)
                is_changed = True
            is_changed = self._choice(choice, index) or is_changed
        if is_changed:
            value["choices"] = choices
        return is_changed

    def _choice(self, choice: dict[str, Any], index: int) -> bool:
        """Put one choice right; whether it changed."""
        raise NotImplementedError


@dataclass(slots=True)
class _Choice:
    """What one choice of a stream has said until now."""

    calls: ToolCalls
    splitter: Splitter | None
    has_role: bool = False
    is_finished: bool = False
    offsets: Offsets = field(default_factory=Offsets)


class StreamNormalizer(_Normalizer):
    """The chunks of one stream, in their order.

    `is_held`: text of the latest chunk was kept back, as it may be part of a tag.
    """

    def __init__(self, context: ResponseContext) -> None:
        super().__init__(context, CHUNKS)
        self.is_held = False
        self._is_chat = context.operation in _WITH_DELTAS
        self._choices: dict[int, _Choice] = {}

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
        """Whether later chunks are changed in the same way whatever comes before them: no tag is waited for, no
        arguments, and no offsets are counted."""
        return all(
            (choice.splitter is None or choice.splitter.is_over)
            and not choice.offsets.is_begun
            and choice.calls.is_settled
            for choice in self._choices.values()
        )

    def normalize(self, value: dict[str, Any]) -> bool:
        """As for all responses; one chunk."""
        self.is_held = False
        return super().normalize(value)

    def _choice(self, choice: dict[str, Any], index: int) -> bool:
        state = self._choices.get(index)
        if state is None:
            reasoning = self._context.reasoning if self._is_chat else "keep"
            state = self._choices[index] = _Choice(ToolCalls(self._context.token), splitter(reasoning))
        is_changed = self._delta(choice, state) if self._is_chat else _text(choice, state.offsets, ("delta", "message"))
        return self._finish(choice, state) or is_changed

    def _delta(self, choice: dict[str, Any], state: _Choice) -> bool:
        delta, is_changed = choice.get("delta"), False
        if not isinstance(delta, dict):
            if delta is not None:
                raise ValueError("a delta that is not an object")
            # Some send a message, or the text of a completion.
            message = choice.pop("message", None)
            delta = message if isinstance(message, dict) else {}
            if isinstance(choice.get("text"), str):
                delta.setdefault("content", choice.pop("text"))
            choice["delta"], is_changed = delta, True
        if not state.has_role:
            state.has_role = True
            is_changed = _role(delta) or is_changed
        elif "role" in delta:  # openai-python would put "assistantassistant" together
            del delta["role"]
            is_changed = True
        is_changed = _content(delta) or is_changed
        if delta.get("tool_calls") is not None or delta.get("function_call") is not None:
            is_changed = state.calls.normalize(delta) or is_changed
        if state.splitter is not None and not state.splitter.is_over:
            has_content = bool(delta.get("content"))
            is_changed = _split(delta, state.splitter) or is_changed
            self.is_held = self.is_held or (has_content and not delta.get("content") and not delta.get("reasoning"))
        return give_both(delta) or is_changed

    def _finish(self, choice: dict[str, Any], state: _Choice) -> bool:
        given = choice.get("finish_reason")
        if is_unset(given) or state.is_finished:
            is_right = given is None and "finish_reason" in choice
            choice["finish_reason"] = None
            return not is_right
        reason = choice["finish_reason"] = _reason(self._context, given)
        state.is_finished = True
        is_changed = bool(reason != given)
        if self._is_chat:
            is_changed = state.calls.end(choice["delta"], is_cut=reason in CUT) or is_changed
        if state.splitter is None:
            return is_changed
        return _say(choice["delta"], *state.splitter.end()) or is_changed


class WholeNormalizer(_Normalizer):
    """One whole response. It is complete, so each choice has a message or a text, and has ended somehow."""

    def __init__(self, context: ResponseContext) -> None:
        super().__init__(context, _WHOLE)
        self._is_chat = context.operation == "chat"

    def _body(self, value: dict[str, Any]) -> bool:
        if value.get("choices") is None:
            raise Broken(self._context.engine, "it sent JSON that is not an answer to this request")
        return super()._body(value)

    def _choice(self, choice: dict[str, Any], index: int) -> bool:
        is_changed = self._message(choice, index) if self._is_chat else _text(choice, Offsets(), ("message",))
        return self._finish(choice) or is_changed

    def _message(self, choice: dict[str, Any], index: int) -> bool:
        message, is_changed = choice.get("message"), False
        if not isinstance(message, dict):
            if message is not None:
                raise ValueError("a message that is not an object")
            # Some send a delta, or the text of a completion.
            message = choice.pop("delta", None)
            if not isinstance(message, dict):
                if not isinstance(choice.get("text"), str):
                    raise ValueError("a choice without a message")
                message = {"content": choice.pop("text")}
            choice["message"], is_changed = message, True
        is_changed = _role(message) or is_changed
        is_changed = normalize_whole(message, f"{self._context.token}{index}") or is_changed
        is_changed = _content(message) or is_changed
        if "content" not in message:
            message["content"], is_changed = None if message.get("tool_calls") else "", True
        return self._split(message) or give_both(message) or is_changed

    def _split(self, message: dict[str, Any]) -> bool:
        """Thinking out of the text, unless the engine tells them apart itself."""
        split, content = splitter(self._context.reasoning), message["content"]
        if split is None or not content or message.get("reasoning") or message.get("reasoning_content"):
            return False
        thinking, text = (a + b for a, b in zip(split.feed(content), split.end(), strict=True))
        if not thinking and text == content:
            return False
        message |= {"content": text, "reasoning": thinking, "reasoning_content": thinking}
        return True

    def _finish(self, choice: dict[str, Any]) -> bool:
        given = choice.get("finish_reason")
        if given:
            reason = _reason(self._context, given)
        else:
            reason = "tool_calls" if self._is_chat and choice["message"].get("tool_calls") else "stop"
        choice["finish_reason"] = reason
        is_filled = self._is_chat and reason not in CUT and fill_arguments(choice["message"])
        return is_filled or bool(reason != given)


def failure(value: dict[str, Any]) -> str | None:
    """What an error says, wherever in a response it stands; None for a response that is no error."""
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
    each = [choices] if isinstance(choices, dict) else choices
    if isinstance(each, list) and None in each:
        each = [choice for choice in each if choice is not None]
    if not isinstance(each, list) or not all(isinstance(choice, dict) for choice in each):
        raise ValueError("choices that are not a list of objects")
    return each


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
            raise ValueError("content that is not text")
        texts.append(text)
    return "".join(texts)


def _role(message: dict[str, Any]) -> bool:
    """Set the role of the assistant; whether it was another one, or missing."""
    is_right = message.get("role") == "assistant"
    message["role"] = "assistant"
    return not is_right


def _content(message: dict[str, Any]) -> bool:
    """Make the content one text; whether it was something else."""
    content = message.get("content")
    if isinstance(content, str | None):
        return False
    message["content"] = flat(content)
    return True


def _reason(context: ResponseContext, given: Any) -> str:
    """The finish_reason in OpenAI's words; EngineFailed for one that says that the engine failed."""
    reason = finish(given)
    if reason is None:
        raise EngineFailed(context.engine, GAVE_UP)
    return reason


def _text(choice: dict[str, Any], offsets: Offsets, places: tuple[str, ...]) -> bool:
    """Put the text of a completion right; whether anything changed. `places`: where some engines have it instead.

    ValueError for a whole response without a text.
    """
    text, is_listed = choice.get("text"), as_lists(choice, offsets)
    if isinstance(text, str):
        return is_listed
    message = None
    for place in places:
        message = message or choice.pop(place, None)
    if text is None and isinstance(message, dict):
        text = message.get("content")
    if text is None and "delta" not in places:
        raise ValueError("a choice without a text")
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
