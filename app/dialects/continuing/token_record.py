"""The tokens of one stream, as its engine tells them beside the text, and the stream as it would be without. Pure.

An engine is asked for them on the gateway's behalf, so clients never see them: behind `strip` a stream is what it is
where nobody asked.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from app.dialects import sse
from backends.engine_profile import TokenTelling

# How an engine is asked for its tokens: members of the request's body, by its way to tell them and the operation.
_ASKED: Final[Mapping[tuple[TokenTelling, str], Mapping[str, bytes]]] = {
    (TokenTelling.NUMBERS, "chat"): {"return_token_ids": b"true"},
    (TokenTelling.NUMBERS, "text_completion"): {"return_token_ids": b"true"},
    # The chosen token's number stands there; how likely the others were would cost a sort of the whole vocabulary.
    (TokenTelling.PROBABILITIES, "chat"): {
        "logprobs": b"true",
        "top_logprobs": b"1",
        "post_sampling_probs": b"true",
    },
    (TokenTelling.PROBABILITIES, "text_completion"): {"logprobs": b"1", "post_sampling_probs": b"true"},
}
_LISTS: Final = re.compile(rb'("(?:prompt_)?token_ids": ?)\[[0-9, \r\n]*\]')
_BLANK_LINE: Final = b"\n\n"


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: Any = None


class _Choice(msgspec.Struct, frozen=True):
    index: int = 0
    delta: _Delta = _Delta()
    text: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    logprobs: msgspec.Raw = msgspec.Raw(b"null")


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []
    prompt_token_ids: list[int] | None = None


class _Entry(msgspec.Struct, frozen=True):
    id: int
    bytes_: list[int] = msgspec.field(name="bytes")


class _Probabilities(msgspec.Struct, frozen=True):
    content: list[_Entry] = []


_chunks = msgspec.json.Decoder(_Chunk)
_probabilities = msgspec.json.Decoder(_Probabilities)


def asked(telling: TokenTelling, operation: str) -> Mapping[str, bytes]:
    """The members of a body by which such an engine tells its tokens."""
    return _ASKED.get((telling, operation), MappingProxyType({}))


class TokenRecord:
    """What is known of one answer until now.

    `prompt`: the numbers of the prompt's tokens, where the engine tells them. `ids`: those of the answer's. `why_not`:
    why they do not say everything of it, as the end of a sentence; empty while they do. `first`: the first chunk with
    text, without what was asked for here.

    With TokenTelling.PROBABILITIES each number has its piece of the text, which `ends` cuts (in bytes of UTF-8): an
    engine that holds text back tells the number of the last token of what it then sends, and none of those before.
    """

    def __init__(self, telling: TokenTelling, operation: str, max_event_bytes: int) -> None:
        self.telling = telling
        self.operation = operation
        self.why_not = ""
        self.prompt: list[int] | None = None
        self.ids: array[int] = array("q")
        self.ends: array[int] = array("q")
        self.first: dict[str, Any] | None = None
        self._framer = sse.Framer(max_event_bytes)
        self._texts: list[str] = []
        self._told = bytearray()
        self._told_of = b'"logprobs":' if telling is TokenTelling.PROBABILITIES else b"token_ids"

    @property
    def text(self) -> str:
        """The answer's text as the client has got it."""
        if len(self._texts) > 1:
            self._texts = ["".join(self._texts)]
        return self._texts[0] if self._texts else ""

    @property
    def told(self) -> bytes:
        """The text that the numbers stand for, cut by `ends`."""
        return bytes(self._told)

    def strip(self, data: bytes) -> bytes:
        """The stream's next bytes as they would be if nobody had asked for tokens; whole events only. ValueError for an
        event that is too large."""
        whole = self._framer.feed(data)
        if not whole:
            return b""
        if whole.count(_BLANK_LINE) == 1 and b"\r" not in whole:
            return self._event(whole)
        return b"".join([self._event(event) for event in sse.split(whole)])

    def rest(self) -> bytes:
        """The same of an event that was begun and not ended."""
        rest = self._framer.rest()
        return self._event(rest + _BLANK_LINE).removesuffix(_BLANK_LINE) if rest else b""

    def _event(self, event: bytes) -> bytes:
        if self._told_of not in event and b'"choices"' not in event:
            return event
        data = sse.data(event)
        if data is None or data == b"[DONE]":
            return event
        try:
            chunk = _chunks.decode(data)
            return self._chunk(chunk, event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.why_not = self.why_not or "its stream is not what was expected of it"
            return event

    def _chunk(self, chunk: _Chunk, event: bytes) -> bytes:
        self.prompt = self.prompt or chunk.prompt_token_ids
        if not chunk.choices:
            return event
        if len(chunk.choices) > 1 or chunk.choices[0].index != 0:
            self.why_not = self.why_not or "it has several choices"
        choice = chunk.choices[0]
        text = choice.text if choice.text is not None else choice.delta.content
        if choice.delta.reasoning or choice.delta.reasoning_content:
            self.why_not = self.why_not or "the model thinks in it"
        if choice.delta.tool_calls:
            self.why_not = self.why_not or "it calls a tool"
        if self.telling is TokenTelling.NUMBERS:
            self.prompt = self.prompt or choice.prompt_token_ids
            event = _LISTS.sub(rb"\1null", event)
            self.ids.extend(choice.token_ids or ())
        else:
            event = self._read_probabilities(bytes(choice.logprobs), event)
        if text:
            self._texts.append(text)
            if self.first is None:
                self.first = msgspec.json.decode(sse.data(event) or b"null")
        return event

    def _read_probabilities(self, raw: bytes, event: bytes) -> bytes:
        if raw == b"null":
            return event
        for entry in _probabilities.decode(raw).content:
            self._told += bytes(entry.bytes_)
            self.ids.append(entry.id)
            self.ends.append(len(self._told))
        if self.operation == "chat":
            return event.replace(b',"logprobs":' + raw, b"", 1)
        return event.replace(b'"logprobs":' + raw, b'"logprobs":null', 1)
