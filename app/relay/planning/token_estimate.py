"""How many tokens a request may come to, before an engine has counted them. Pure.

A text counts a token for four bytes, which is what English comes to; Chinese has three bytes to a character, and about
as many tokens as characters. What an engine counts replaces it.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

import msgspec

from app.dialects.parameters.adjust import number
from app.dialects.validation.messages import NOTHING
from app.relay.planning.plan import WRITING, RequestPlan

BYTES_PER_TOKEN: Final = 4
# A picture, a sound or a file, whatever its size: what models make of a picture is between 250 and 1,600.
MEDIA_TOKENS: Final = 1000
# No answer is longer, whatever a request asks for: sums with larger numbers are not exact.
MOST_TOKENS: Final = 1 << 40
# Operations that come to no tokens: they ask about a prompt, a text or a model.
FREE: Final = frozenset({"load", "count_tokens", "render", "tokenize", "detokenize", "tokenizer_info"})
# What stands before base64: in a `data:` URL, and in a part with a sound.
_MEDIA_MARKS: Final = (b";base64,", b'"data":"', b'"data": "')
# A body up to this size has no media that matter.
SMALL_BYTES: Final = 2048
_TOKEN_LISTS: Final = (b'"prompt"', b'"input"')
_whole: Final = msgspec.json.Decoder(int)
_NUMBERS: Final = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n\[]*\d")


# Tokens of the prompt, of all that may be answered, and whether the request sets no bound on its answer. A plain tuple:
# it is made for each request.
TokenEstimate: TypeAlias = tuple[int, int, bool]
NO_TOKENS: Final[TokenEstimate] = (0, 0, False)


def estimate(plan: RequestPlan, assumed: int) -> TokenEstimate:
    """What to count on. `assumed`: the tokens of an answer that neither the request nor the configuration bounds."""
    operation = plan.operation.name
    if operation == "chat" and len(plan.body) <= SMALL_BYTES:  # as below; nearly every one
        prompt = len(plan.body) // BYTES_PER_TOKEN
    elif operation in FREE:
        return NO_TOKENS
    else:
        prompt = prompt_tokens(plan)
        if operation not in WRITING:
            return prompt, assumed if plan.form is not None else 0, False
    asked, rules = plan.parameters, plan.resolved.model.rules
    raw = asked.max_tokens
    if raw is NOTHING or asked.max_completion_tokens is not NOTHING or rules.overrides:
        bound = answer_bound(plan)
    else:
        bound = _bound(raw) or answer_bound(plan)
    if bound is None:
        return prompt, assumed * plan.choices, True
    return prompt, bound * plan.choices, False


def prompt_tokens(plan: RequestPlan) -> int:
    """Of the prompt alone."""
    if plan.form is not None:
        return MEDIA_TOKENS
    body = plan.body
    if plan.operation.takes_tokens and _has_token_list(body):
        return body.count(b",") + 1
    size = len(body)
    if size <= SMALL_BYTES:
        return size // BYTES_PER_TOKEN
    count, media_bytes = _media(body)
    return count * MEDIA_TOKENS + (size - media_bytes) // BYTES_PER_TOKEN


def answer_bound(plan: RequestPlan) -> int | None:
    """The most tokens of one answer, as the request or its model's configuration has it; None where neither does."""
    asked, rules = plan.parameters, plan.resolved.model.rules
    if rules.overrides and isinstance(fixed := rules.overrides.get("max_tokens"), int):
        return fixed
    bound = _bound(asked.max_completion_tokens)
    if asked.max_tokens is not NOTHING:
        bound = max(bound, _bound(asked.max_tokens))
    if bound > 0:
        return bound
    default = rules.defaults.get("max_tokens") if rules.defaults else None
    return default if isinstance(default, int) else None


def _bound(raw: msgspec.Raw) -> int:
    """The number that this JSON is, rounded, MOST_TOKENS at most; 0 for one below 1 and for anything else."""
    if raw is NOTHING:
        return 0
    try:
        bound = _whole.decode(raw)
    except msgspec.DecodeError:  # of another type
        bound = int(number(raw) or 0)
    return max(0, min(bound, MOST_TOKENS))


def _media(body: bytes) -> tuple[int, int]:
    """How many pictures, sounds and files a body carries, and in how many bytes. Substring searches only: it may have
    many megabytes.
    """
    count = total = 0
    for mark in _MEDIA_MARKS:
        start = body.find(mark)
        while start >= 0:
            end = body.find(b'"', start + len(mark))
            end = len(body) if end < 0 else end
            if end - start > SMALL_BYTES:
                count, total = count + 1, total + end - start
            start = body.find(mark, end)
    return count, min(total, len(body))


def _has_token_list(body: bytes) -> bool:
    """Whether a list of tokens, or of such lists, stands where a text may."""
    for name in _TOKEN_LISTS:
        at = body.find(name)
        if at >= 0 and _NUMBERS.match(body, at + len(name)):
            return True
    return False
