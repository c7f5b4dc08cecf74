"""A request that is longer than the model's context: how each engine says so, and the one error that it becomes. Pure.

The texts are those of vLLM, llama.cpp, Ollama, SGLang, TGI and TEI, LM Studio, TensorRT-LLM, LiteLLM, and of OpenAI,
Anthropic, Gemini, Mistral, xAI, Groq and others, whose errors servers in between pass on. Similar texts must not match:
a `max_tokens` that is not a number, too many tokens in a minute, a name that is too long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from backends.errors import EngineFailed, Rejected, Taken

MAX_DEPTH: Final = 8
MAX_CHARS: Final = 8192  # of a text that is searched
_MAX_ITEMS: Final = 5

# The members in which an error has its texts; what it repeats of the request (FastAPI's `input`) is in others.
_TEXT_MEMBERS: Final = (
    "message",
    "error",
    "detail",
    "details",
    "msg",
    "errors",
    "type",
    "code",
    "error_type",
    "error_message",
)
_CONTEXT: Final = r"context[ _]?(?:length|size|window|limit)"
_IS: Final = re.compile(
    "|".join(
        (
            rf"{_CONTEXT}[ _]?exceeded|{_CONTEXT}\b[^.]{{0,30}} exceed(?:ed|s)",
            r"ContextWindowExceeded|exceed_context_size",
            rf"(?:exceed\w*|longer than|greater than|larger than|too (?:long|large))\b[^.]{{0,80}}\b{_CONTEXT}",
            r"maximum context length|maximum (?:prompt|model) length (?:of|is)\b",
            r"\b(?:prompt|inputs?|messages|conversation|request) (?:is|are) too (?:long|large to process)\b",
            r"\binput \(\d{1,12} tokens\) is too large to process",
            r"\b(?:prompt|input)\b[^.]{0,60}\bexceeds? (?:the )?(?:maximum (?:allowed |input |number of tokens|length)"
            r"|max_model_len|max_seq_len|max length)",
            r"prompt_token_ids length [^.]{0,60}exceeds",
            r"sum of (?:the )?prompt length\b.{0,160}?\b(?:exceed|should not)",
            r"max_tokens \(-\d{1,12}\) must be greater than 0",
            r"inputs\W{0,2} tokens \+ \W{0,2}max_new_tokens\W{0,2} must be <=",
            r"inputs\W{0,2} must have less than \d{1,12} tokens",
            r"tokens to keep from the initial prompt is greater|trying to keep the first \d{1,12} tokens",
            r"reduce the length of (?:the|your) (?:messages|input|prompt)",
            r"exceeded model token limit|prompt token count of \d{1,12} exceeds|range of input length should be",
            r"current length is \d{1,12} while limit is \d{1,12}",
        )
    ),
    re.IGNORECASE,
)
_N: Final = r"(\d[\d,]{0,14})"
# How many tokens there may be: the first pattern that matches counts.
_MOST: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\d{{1,12}} tokens? > {_N}|\d{{1,12}} \+ \d{{1,12}} > {_N}",
        rf"must be <= {_N}|must have less than {_N} tokens",
        rf"maximum (?:context|prompt|model|sequence|input|allowed) length\W{{0,3}}(?:(?:of|is)\W)?(?:only )?\(?{_N}",
        rf"{_CONTEXT}\W{{0,3}}(?:(?:of|is) )?(?:only )?\(?{_N}",
        rf"maximum number of tokens(?: allowed)? \({_N}",
        rf"max_(?:model_len|seq_len|num_tokens)\W{{1,4}}{_N}",
        rf"\bn_ctx\W{{1,3}}{_N}|current batch size: {_N}|model with {_N} maximum context",
        rf"limit of {_N}|token limit: {_N}|limit is {_N}|should be \[\d{{1,12}}, ?{_N}\]",
    )
)
# How many tokens the prompt has (`has…`, `least`: at least so many), and how many were asked for beside it (`out`).
_HAS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"requested (?P<out>\d{1,12}) output tokens and your prompt contains (?P<least>at least )?(?P<has>\d{1,12})",
        r"is too large: (?P<out>\d{1,12})\..{0,200}?request has (?P<has>\d{1,12}) input tokens",
        r"total of \d{1,12} tokens: (?P<has>\d{1,12}) tokens from the input messages and (?P<out>\d{1,12})",
        r"\((?P<has>\d{1,12})(?: tokens)? (?:in the messages|in (?:your|the) prompt|of text input)"
        r"\D{1,30}(?P<out>\d{1,12})",
        r"(?P<has>\d{1,12}) \+ (?P<out>\d{1,12}) > \d",
        r"Given: (?P<has>\d{1,12})(?: \W{0,2}inputs\W{0,2} tokens and (?P<out>\d{1,12}))?",
        r"too long: (?P<has>\d{1,12})",
        r"prompt contains (?P<least>at least )?(?P<has>\d{1,12}) (?:input )?tokens",
        r"(?:resulted in|request (?:has|contains)|you requested(?: about| a total of)?) (?P<has>\d{1,12})"
        r"(?: input)? tokens",
        r"(?:request|input|input length|prompt|prompt length|input token count|splited_prompt_len)"
        r"(?: is)? \((?:length )?(?P<has>\d{1,12})(?:\.0)?(?: tokens)?\)",
        r"(?:prompt|input) length(?: of)? (?P<has>\d{1,12}) exceeds",
        r"token count of (?P<has>\d{1,12})|current length is (?P<has1>\d{1,12})",
        r"keep the first (?P<has>\d{1,12}) tokens|n_keep\W{1,3}(?P<has1>\d{1,12})|total length (?P<has2>\d{1,12})",
    )
)


class Length(msgspec.Struct, frozen=True):
    """How long the request is and how long it may be, in tokens; None where the engine does not say. `output`: the
    tokens that it asks for, where they count too. `is_least`: the prompt has `prompt` tokens or more.
    """

    prompt: int | None = None
    limit: int | None = None
    output: int | None = None
    is_least: bool = False

    @property
    def is_of_prompt(self) -> bool:
        """Whether the prompt alone is known not to fit."""
        return bool(self.prompt and self.limit and self.prompt >= self.limit)

    @property
    def is_of_answer(self) -> bool:
        """Whether the prompt fits, and only what it asks for does not fit beside it."""
        return bool(self.output and self.prompt and self.limit and self.prompt < self.limit)


class TooLong(Rejected):
    """The request is longer than the model's context: OpenAI's `context_length_exceeded`. `advice`: the end of the
    sentence, with what the administrator can do.
    """

    def __init__(self, engine: str, length: Length, *, param: str | None = "messages", advice: str = "") -> None:
        self.length = length
        self._advice = advice
        type_ = "invalid_request_error"
        super().__init__(
            engine, _sentence(length, advice), status=400, type_=type_, code="context_length_exceeded", param=param
        )

    def placed(self, limit: int | None, param: str | None) -> None:
        """Add what the engine did not say: the model's context length, and the field that the error is about."""
        if self.length.limit is None and limit is not None:
            self.length = msgspec.structs.replace(self.length, limit=limit)
            self.message = _sentence(self.length, self._advice)
        self.param = param


def _sentence(length: Length, advice: str) -> str:
    least = "at least " if length.is_least else ""
    if length.limit is None:
        has = f" It has {least}{length.prompt} tokens." if length.prompt else ""
        return f"The request is longer than this model's maximum context length.{has} Shorten it{advice}."
    first = f"This model's maximum context length is {length.limit} tokens, and the request has"
    if length.is_of_answer:
        both = f"{least}{length.prompt} and asks for {length.output} more"
        return f"{first} {both}. Shorten it, or lower `max_tokens`{advice}."
    return f"{first} {f'{least}{length.prompt}' if length.prompt else 'more'}. Shorten it{advice}."


def length_of(error: Any) -> Length | None:
    """The length in an engine's error, whatever shape the error has; None for an error of another sort."""
    members: dict[str, int] = {}
    text = " ".join(_texts(error, members, MAX_DEPTH))[:MAX_CHARS]
    if _IS.search(text) is None:
        return None
    sizes = next((match for pattern in _HAS if (match := pattern.search(text))), None)
    groups = sizes.groupdict() if sizes is not None else {}
    counts = [value for name, value in groups.items() if name.startswith("has") and value]
    limits = (match for pattern in _MOST if (match := pattern.search(text)))
    limit = next((value for match in limits for value in match.groups() if value), None)
    return Length(
        prompt=members.get("n_prompt_tokens") or (_number(counts[0]) if counts else None),
        limit=members.get("n_ctx") or _number(limit),
        output=_number(groups.get("out")),
        is_least=bool(groups.get("least")),
    )


def in_body(body: bytes) -> Length | None:
    """The same, from the body of a response."""
    value = _decoded(body)
    return length_of(body[:MAX_CHARS].decode("utf-8", "replace") if value is None else value)


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def failed(engine: str, error: Any, text: str) -> Taken:
    """The failure for an error that an engine sent with a good status. `text`: the error's message, in one line."""
    length = length_of(error) or length_of(text)
    return TooLong(engine, length) if length is not None else EngineFailed(engine, text)


def _number(digits: str | None) -> int | None:
    plain = digits.replace(",", "") if digits else ""
    return int(plain) if plain and len(plain) < 12 else None


def _texts(error: Any, members: dict[str, int], depth: int) -> Iterator[str]:
    """The texts in an error, JSON inside a string too. llama.cpp's numbers are put into `members`."""
    match error:
        case str():
            text = error[:MAX_CHARS]
            yield text
            start = text.find("{")
            if start >= 0 and depth:
                yield from _texts(_decoded(text[start:].rstrip(" .'\"").encode()), members, depth - 1)
        case dict() if depth:
            for name in ("n_prompt_tokens", "n_ctx"):
                value = error.get(name)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    members[name] = value
            for name in _TEXT_MEMBERS:
                yield from _texts(error.get(name), members, depth - 1)
        case list() if depth:
            for item in error[:_MAX_ITEMS]:
                yield from _texts(item, members, depth - 1)
