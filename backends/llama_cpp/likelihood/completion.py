"""A text completion in OpenAI's legacy shape that begins with its prompt: what is asked, and the answer. Pure."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backends.llama_cpp.likelihood.token_scores import Drawing, TokenScore

MOST_ALTERNATIVES: Final = 20
MOST_CHOICES: Final = 128  # of one request: whoever asks next waits until all its prompts are read
# What decides the next token of llama.cpp's server and is not done here, with the values that ask for nothing.
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    **dict.fromkeys(("grammar", "json_schema", "response_format"), ("", {}, {"type": "text"})),
    **dict.fromkeys(("mirostat", "dry_multiplier", "xtc_probability", "dynatemp_range"), (0,)),
    "typical_p": (1, 0),
    "top_n_sigma": (0, -1),
}


class BadRequest(Exception):
    """The request cannot be answered. `error`: the members of the error that the client gets, `message` among them."""

    def __init__(self, message: str, **members: Any) -> None:
        super().__init__(message)
        self.error: dict[str, Any] = {"message": message, "type": "invalid_request_error", "code": 400, **members}


@dataclass(frozen=True, slots=True)
class EchoRequest:
    """One request. `prompts`: texts or lists of tokens. `top`: how many of the likeliest tokens are told at each place,
    None where no log probabilities are wanted. `is_continued`: one token more is written. `copies`: answers for each
    prompt.
    """

    prompts: tuple[str | tuple[int, ...], ...]
    top: int | None
    is_continued: bool
    copies: int
    seed: int | None
    sampling: Drawing
    stops: tuple[str, ...]
    is_stream: bool
    wants_usage: bool


def read(body: Mapping[str, Any]) -> EchoRequest:
    """The request in this body; BadRequest for one of another shape."""
    top, bound = body.get("logprobs"), body.get("max_tokens")
    if bound not in (0, 1):
        raise BadRequest("With 'echo', 'max_tokens' must be 0 or 1 for this engine.", param="max_tokens")
    if top is not None and not (_is_count(top) and top <= MOST_ALTERNATIVES):
        raise BadRequest(f"'logprobs' must be a whole number from 0 to {MOST_ALTERNATIVES}.", param="logprobs")
    if bound == 1:
        _check_sampling(body)
    copies, seed, stop = body.get("n") or 1, body.get("seed"), body.get("stop") or ()
    if not _is_count(copies):
        raise BadRequest("'n' must be a whole number of 1 or more.", param="n")
    prompts = _prompts(body.get("prompt"))
    if len(prompts) * copies > MOST_CHOICES:
        asked = f"{len(prompts)} prompts" if len(prompts) > 1 else "one prompt"
        param = "prompt" if len(prompts) > MOST_CHOICES else "n"
        message = (
            f"With 'echo' this engine answers at most {MOST_CHOICES} times to one request, and {asked} with 'n' "
            f"{int(copies)} are {int(len(prompts) * copies)}: send fewer at a time."
        )
        raise BadRequest(message, param=param)
    return EchoRequest(
        prompts=prompts,
        top=None if top is None else int(top),
        is_continued=bound == 1,
        copies=int(copies),
        seed=int(seed) if isinstance(seed, int | float) else None,
        sampling=Drawing.read(body),
        stops=(stop,) if isinstance(stop, str) else tuple(stop),
        is_stream=bool(body.get("stream")),
        wants_usage=bool((body.get("stream_options") or {}).get("include_usage")),
    )


def _check_sampling(body: Mapping[str, Any]) -> None:
    """BadRequest for what would make the token that follows another one, and is not done here."""
    for name, neutral in _NEUTRAL.items():
        value = body.get(name)
        if value is not None and value not in neutral:
            message = f"With 'echo' this engine cannot do '{name}': leave it out, or send 'max_tokens': 0."
            raise BadRequest(message, param=name)


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and value == int(value)


def _prompts(given: Any) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(given, str):
        return (given,)
    if isinstance(given, list) and given:
        if all(_is_count(each) for each in given):
            return (tuple(map(int, given)),)
        if all(isinstance(each, str) for each in given):
            return tuple(given)
        if all(isinstance(each, list) and each and all(map(_is_count, each)) for each in given):
            return tuple(tuple(map(int, each)) for each in given)
    wanted = "a string, a list of strings, a list of tokens, or a list of such lists"
    raise BadRequest(f"'prompt' must be {wanted}, and not empty.", param="prompt")


def shown(piece: bytes) -> str:
    """A token as text; one that is not whole characters as OpenAI writes it: `bytes:\\xe4\\xb8`."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def choice(
    index: int,
    prompt: str | None,
    scores: Sequence[TokenScore],
    following: TokenScore | None,
    piece: Callable[[int], bytes],
    asked: EchoRequest,
    *,
    is_end: bool = False,
) -> dict[str, Any]:
    """One choice: the prompt, and the token that follows it where one was asked for. `prompt`: as it was sent, None
    where it was sent as tokens. `piece`: the bytes of a token. `is_end`: the token that follows ends the text.
    """
    pieces = [piece(each.token) for each in scores]
    joined = b"".join(pieces)
    text = joined.decode(errors="replace") if prompt is None else prompt
    added = len(joined) - len(text.encode()) if prompt is not None and joined.endswith(text.encode()) else 0
    reason = "length"
    listed = [*scores]
    if following is not None:
        last = piece(following.token)
        listed.append(following)
        pieces.append(last)
        written = "" if is_end else last.decode(errors="replace")
        ends = [at for stop in asked.stops if stop and (at := written.find(stop)) >= 0]
        text += written[: min(ends)] if ends else written
        reason = "stop" if ends or is_end else "length"
    logprobs = _lists(listed, pieces, added, piece) if asked.top is not None else None
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _lists(
    scores: Sequence[TokenScore], pieces: Sequence[bytes], added: int, piece: Callable[[int], bytes]
) -> dict[str, Any]:
    """Lists side by side. `added`: so many bytes at the beginning are not in the text."""
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    at, left, offsets = 0, added, []
    for each in pieces:
        offsets.append(at)
        at += len(decoder.decode(each[left:]))
        left = max(0, left - len(each))
    return {
        "tokens": [shown(each) for each in pieces],
        "token_logprobs": [each.logprob for each in scores],
        "top_logprobs": [_likeliest(each, piece) for each in scores],
        "text_offset": offsets,
    }


def _likeliest(score: TokenScore, piece: Callable[[int], bytes]) -> dict[str, float] | None:
    """Token → log probability of the likeliest, and of the one that is there, which need not be one of them."""
    if score.logprob is None:
        return None
    told: dict[str, float] = {}
    for token, logprob in (*score.likeliest, (score.token, score.logprob)):
        told.setdefault(shown(piece(token)), logprob)
    return told


def check_numbers(scores: Sequence[TokenScore]) -> None:
    """ValueError where a model computes no numbers."""
    if any(each.logprob is not None and not math.isfinite(each.logprob) for each in scores):
        raise ValueError("the model answers with values that are no numbers")


def answer(name: str, created: int, model: str, choices: Sequence[dict[str, Any]], usage: Mapping[str, int]) -> bytes:
    """The whole response."""
    return json.dumps(
        {
            "id": name,
            "object": "text_completion",
            "created": created,
            "model": model,
            "choices": list(choices),
            "usage": dict(usage),
        }
    ).encode()


def events(whole: bytes, *, wants_usage: bool) -> Iterator[bytes]:
    """A whole response as a stream: an event for each choice."""
    response = json.loads(whole)
    choices, usage = response.pop("choices"), response.pop("usage")
    for each in choices:
        yield b"data: " + json.dumps({**response, "choices": [each]}).encode() + b"\n\n"
    if wants_usage:
        yield b"data: " + json.dumps({**response, "choices": [], "usage": usage}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"
