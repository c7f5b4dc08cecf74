"""Whether models can be compared at all: their certificates, and whether the question fits each of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from app.errors import Problem, bad_request
from app.routing import Resolved
from app.table import Table

# What begins the summary of a certificate that has failed (app/certificate/certificate.py).
_FAILED: Final = "failed"
_TEMPLATE_TOKENS: Final = 512  # more than any template adds to a conversation, beside the marks around its messages
_MESSAGE_TOKENS: Final = 16


class Room(NamedTuple):
    """What a model's context takes, and what of it the prompt needs, in tokens; None: not known."""

    name: str
    context: int | None
    prompt: int | None = None


def certificate_reasons(models: Sequence[Resolved]) -> list[str]:
    """A sentence for each model whose certificate says that it is not served as it was trained."""
    return [
        f"the certificate of {each.name} has {each.model.parity} (`modelport parity {each.name}`)"
        for each in models
        if each.model.parity is not None and each.model.parity.startswith(_FAILED)
    ]


def context_of(table: Table, resolved: Resolved) -> int | None:
    """The tokens that the first engine behind a name takes, prompt and answer together; None where nobody knows."""
    target = resolved.model.targets[0] if resolved.model.targets else None
    row = table.backends.get(target.backend) if target is not None else None
    facts = row.fact(target.model) if row is not None and target is not None else None
    return (facts.num_ctx or facts.context_length) if facts is not None else None


def surely_fits(rooms: Sequence[Room], prompt_bytes: int, messages: int, max_tokens: int) -> bool:
    """Whether prompt and answer fit every context whatever the tokens are: there are no more of them than bytes."""
    most = prompt_bytes + messages * _MESSAGE_TOKENS + _TEMPLATE_TOKENS + max_tokens
    return all(room.context is None or most <= room.context for room in rooms)


def most_tokens(rooms: Sequence[Room]) -> int | None:
    """The longest answer for which every model has room; None where no room is known."""
    left = [room.context - room.prompt for room in rooms if room.context is not None and room.prompt is not None]
    return min(left, default=None)


def context_reasons(rooms: Sequence[Room], max_tokens: int | None) -> list[str]:
    """Why not every model has room. `max_tokens`: the answer's length as the client wants it, None: any.

    Problem (400) where the prompt fits none of them.
    """
    known = {
        room.name: (room.prompt, room.context) for room in rooms if room.context is not None and room.prompt is not None
    }
    full = [name for name, (prompt, context) in known.items() if prompt >= context]
    if full and len(full) == len(rooms):
        message = f"The prompt fits none of the contexts: {_listed(known)}."
        raise bad_request(message, param="messages", code="context_length_exceeded")
    if full:
        return [f"the prompt does not fit every context: {_listed(known)}"]
    left = most_tokens(rooms)
    if max_tokens is not None and left is not None and max_tokens > left:
        return [f"with max_tokens {max_tokens} not every context has room ({_listed(known)}): at most {left} fit all"]
    return []


def refusal(reasons: Sequence[str]) -> Problem:
    """Problem (409): such a comparison would say nothing of the models."""
    why = "; ".join(reasons)
    message = f'These models are not comparable: {why}. Send "force": true to compare them nevertheless.'
    return Problem(409, "not_comparable", message, param="models")


def _listed(known: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(f"{name} {prompt} of {context} tokens" for name, (prompt, context) in known.items())
