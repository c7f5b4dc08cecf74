"""What the likeliest tokens alone tell: bounds that the exact figures cannot be below. Pure.

Engines tell the log probabilities of the likeliest few tokens only (`top_logprobs`). A token that is not among them is
at most as probable as the least of them, and as all that they leave; so its negative log probability is a lower bound.
For the KL divergence, all tokens that one of the two lists lacks are taken as one: merging events never makes a
divergence larger (data processing inequality). The likeliest token itself is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Likeliest = Sequence[tuple[int, float]]  # tokens with their log probabilities, likeliest first


@dataclass(frozen=True, slots=True)
class Bounds:
    """One position: `nll` and `kl` are at least so large (in nats); `is_seen`: `nll` is exact; `is_same`: both models
    have the same likeliest token.
    """

    nll: float
    kl: float
    is_seen: bool
    is_same: bool


def bounds(target: int, own: Likeliest, reference: Likeliest | None) -> Bounds:
    """What a model's likeliest tokens say of the token that really came, and of the reference's likeliest (None: it is
    the reference). Lists are not empty.
    """
    logs = dict(own)
    is_seen = target in logs
    if is_seen:
        nll = -logs[target]
    else:
        rest = 1 - math.fsum(math.exp(log) for log in logs.values())
        nll = max(-own[-1][1], -math.log(rest) if rest > 0 else 0.0)
    if reference is None:
        return Bounds(nll, 0.0, is_seen, is_same=True)
    return Bounds(nll, _divergence(dict(reference), logs), is_seen, is_same=own[0][0] == reference[0][0])


def _divergence(reference: dict[int, float], own: dict[int, float]) -> float:
    """KL divergence in nats of the tokens that both have and, as one event, all others."""
    both = reference.keys() & own.keys()
    known = math.fsum(math.exp(reference[token]) * (reference[token] - own[token]) for token in both)
    left = 1 - math.fsum(math.exp(reference[token]) for token in both)
    own_left = 1 - math.fsum(math.exp(own[token]) for token in both)
    if left > 0 and own_left > 0:
        known += left * math.log(left / own_left)
    return max(0.0, known)
