"""What bound on an answer fits an engine that has refused a larger one, by the numbers in its own error. Pure.

Every other bound that an engine refuses (below 1, not a whole number, below `min_tokens`) is the client's mistake.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MAX_CHARS: Final = 2000
_N: Final = r"(\d{1,12})"
_NAME: Final = r"\W{0,2}max_(?:completion_|new_|output_)?tokens\W{0,2}"
_FLAGS: Final = re.IGNORECASE | re.DOTALL
# How many tokens the context has, and how many the prompt. vLLM, SGLang, TGI, OpenAI, and our own sentence.
_BOTH: Final = tuple(
    re.compile(pattern, _FLAGS)
    for pattern in (
        rf"maximum context length (?:is|of) {_N} tokens.{{0,200}}?prompt contains (?:at least )?{_N} input tokens",
        rf"maximum context length (?:is|of) {_N} tokens.{{0,200}}?request has (?:at least )?{_N} input tokens",
        rf"maximum context length (?:is|of) {_N} tokens.{{0,200}}?{_N}(?: tokens from the| in the) (?:input )?messages",
        rf"maximum context length (?:is|of) {_N} tokens.{{0,200}}?{_N} in (?:the|your) prompt",
        rf"maximum context length is {_N} tokens, and the request has (?:at least )?{_N} and asks for",
        rf"max_new_tokens\W{{0,2}} must be <= {_N}\. Given: {_N}",
    )
)
# The most that an answer may have, whatever the prompt has.
_MOST: Final = tuple(
    re.compile(pattern, _FLAGS)
    for pattern in (
        rf"{_NAME} is too large.{{0,80}}?at most {_N} (?:completion|output) tokens",
        rf"{_NAME}.{{0,60}}?valid range .{{0,30}}?\[ ?1, ?{_N}\]",
    )
)
# That it is too much, without a usable number: the prompt was counted only as far as it mattered ("at least").
_TOO_MUCH: Final = re.compile(
    rf"at least \d+ (?:input tokens|and asks)|{_NAME}(?:\W?\d+)? (?:is too (?:large|big|high)|cannot be greater than"
    rf"|exceeds)|Please request fewer output tokens|maximum context length|context[ _]length[ _]exceeded",
    _FLAGS,
)


class Fit(NamedTuple):
    """The most tokens that an answer may have; None: only the context bounds it."""

    most: int | None


def fit(message: str, asked: int) -> Fit | None:
    """The bound to ask for instead of `asked` after this error; None where that was not too much, or nothing fits."""
    text = message[:MAX_CHARS]
    for pattern in _BOTH:
        match = pattern.search(text)
        if match is not None:
            room = int(match[1]) - int(match[2])
            if room < 1:
                return None
            if "at least" not in match[0]:
                return Fit(room) if asked > room else None
    for pattern in _MOST:
        match = pattern.search(text)
        if match is not None:
            return Fit(int(match[1])) if 1 <= int(match[1]) < asked else None
    return Fit(None) if _TOO_MUCH.search(text) else None
