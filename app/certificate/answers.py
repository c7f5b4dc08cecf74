"""Greedy answers of two servings, held against each other: texts, the first token that differs, and figures. Pure.

What is compared are positions that both have reached by the same tokens: up to the first that differs, and that one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

from app.certificate.certificate import Fault, Finding, Line
from app.certificate.observation import Observation, SeenAnswer, SeenToken

_LETTERS: Final = 16  # of a text that are shown on each side of a difference
_SMALLEST: Final = 1e-9  # of a probability
# How far two servings of the same 16-bit weights are from each other where both have the same text before them. Numbers
# of 8 significant bits (bfloat16) leave 0.4 % of a logit; logits of small models reach 20, so 0.1 is usual.
_NOISE: Final = 0.1
# A decision is noise up to so many times the largest difference that was seen between the two where they agreed.
_TIMES: Final = 2.0
# Bits per weight → the most KL divergence (nats) and the least agreement that such a packing has by itself: about four
# times what SmolLM2-135M, a small and thus sensitive model, was measured with (KL 0.0012, 0.049, 0.71 with 8, 4, 2 bits
# per weight; same first choice 98 %, 87 %, 42 %). Below, nothing can be said.
_TOLERATED: Final[tuple[tuple[float, float, float], ...]] = ((15.0, 0.02, 0.93), (7.9, 0.05, 0.9), (3.4, 0.3, 0.6))
# Fewer positions than this say nothing about a share.
_ENOUGH: Final = 16


class Fork(NamedTuple):
    """Where two answers part: at which token, what each writes there, and how sure each is of its own token over the
    other's, in nats; None where the other's is not among its likeliest. `is_told`: whether the engines tell what else
    could stand there; not where they part within what one of them tells in one piece.
    """

    at: int
    texts: tuple[str, str]
    gaps: tuple[float | None, float | None]
    is_told: bool = True

    @property
    def gap(self) -> float | None:
        """On how many nats the choice hangs."""
        return min((gap for gap in self.gaps if gap is not None), default=None)


class Agreement(NamedTuple):
    """Over the positions that were compared: how many, the share with the same likeliest token, the mean truncated KL
    divergence in nats, and the largest difference of a log-probability where both went on alike.
    """

    positions: int
    agreement: float
    kl: float
    noise: float


def compared(one: Observation, other: Observation) -> tuple[Line, ...]:
    """The lines about answers."""
    names = [name for name in one.answers if name in other.answers]
    both = {name: (one.answers[name], other.answers[name]) for name in names}
    usable = {name: pair for name, pair in both.items() if all(each.refused is None for each in pair)}
    if not usable:
        why = next((each.refused for pair in both.values() for each in pair if each.refused), "nothing was asked")
        return (
            Line("answers", "greedy answers", Finding.UNCHECKED, why),
            Line("numbers", "log-probabilities", Finding.UNCHECKED, why),
        )
    figures = figures_of(list(usable.values()))
    bits = min(_bits(one), _bits(other))
    stops = {*one.stops, *other.stops}
    parted = {name: fork(mine, theirs, stops) for name, (mine, theirs) in usable.items()}
    forks = {name: each for name, each in parted.items() if each is not None}
    return _texts(forks, len(usable), figures, bits), _numbers(figures, bits)


def fork(one: SeenAnswer, other: SeenAnswer, stops: Collection[str] = ()) -> Fork | None:
    """Where they part; None where they are the same as far as both go. What counts is the text: engines tell letters of
    several tokens in other pieces. `stops`: the texts that end an answer, as engines tell them that tell them at all.
    """
    shorter, longer = (one, other) if len(one.text) <= len(other.text) else (other, one)
    if longer.text.startswith(shorter.text):
        has_ended = longer.text != shorter.text and shorter.finish != "length"
        return _ended(one, other, shorter is one, frozenset({"", *stops})) if has_ended else None
    mine, theirs = _told(one), _told(other)
    at = next((at for at, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]), None)
    if at is None:
        return None
    parted = [pair for pair in _aligned(one, other) if pair[0].text != pair[1].text]
    gaps = (_gap(*parted[-1]), _gap(*reversed(parted[-1]))) if parted else (None, None)
    return Fork(_place(one, at), _around(mine, theirs, at), gaps, bool(parted))


def _ended(one: SeenAnswer, other: SeenAnswer, is_mine: bool, ends: Collection[str]) -> Fork:
    """Where the first (`is_mine`) or the other has ended, and the other one goes on: to end is a choice like any."""
    shorter, longer = (one, other) if is_mine else (other, one)
    at = len(shorter.text)
    place = _place(longer, at)
    goes_on = longer.tokens[place] if longer.tokens else None
    told = next((each for each in reversed(shorter.tokens) if each.text in ends), None)  # not all engines tell it
    gaps = (
        _over(told, {goes_on.text}) if told is not None and goes_on is not None else None,
        _over(goes_on, ends) if goes_on is not None else None,
    )
    in_order = gaps if is_mine else (gaps[1], gaps[0])
    return Fork(place, _around(one.text, other.text, at), in_order, goes_on is not None and bool(goes_on.top))


def _place(answer: SeenAnswer, at: int) -> int:
    """Which token of an answer has the letter at this place."""
    return next((index for index, _ in enumerate(answer.tokens) if len(_told(answer, index + 1)) > at), 0)


def _around(mine: str, theirs: str, at: int) -> tuple[str, str]:
    start = max(0, at - _LETTERS)
    return mine[start : at + _LETTERS], theirs[start : at + _LETTERS]


def figures_of(pairs: list[tuple[SeenAnswer, SeenAnswer]]) -> Agreement | None:
    """The figures over all positions; None where the engines told no log-probabilities."""
    tokens = [pair for one, other in pairs for pair in _aligned(one, other)]
    told = [(mine, theirs) for mine, theirs in tokens if mine.top and theirs.top]
    if not told:
        return None
    agreement = sum(mine.top[0].text == theirs.top[0].text for mine, theirs in told) / len(told)
    kl = sum(truncated_kl(mine, theirs) for mine, theirs in told) / len(told)
    alike = [_apart(mine, theirs) for mine, theirs in told if mine.text == theirs.text]
    return Agreement(len(told), agreement, kl, max(alike, default=0.0))


def truncated_kl(mine: SeenToken, theirs: SeenToken) -> float:
    """KL divergence over the texts that both tell, and all others as one: less than the true one, never more."""
    shares, others = _shares(mine), _shares(theirs)
    both = [text for text in shares if text in others]
    total = sum(shares[text] * math.log(shares[text] / others[text]) for text in both)
    rest = max(_SMALLEST, 1 - sum(shares[text] for text in both))
    other_rest = max(_SMALLEST, 1 - sum(others[text] for text in both))
    return max(0.0, total + rest * math.log(rest / other_rest))


def _shares(token: SeenToken) -> dict[str, float]:
    """The probability of each text. Tokens that are no whole letter, or are not shown, share one: "\ufffd" and ""."""
    shares: dict[str, float] = {}
    for each in token.top:
        shares[each.text] = shares.get(each.text, 0.0) + max(math.exp(each.logprob), _SMALLEST)
    return shares


def _told(answer: SeenAnswer, count: int | None = None) -> str:
    return "".join(each.text for each in answer.tokens[:count]) if answer.tokens else answer.text


def _aligned(one: SeenAnswer, other: SeenAnswer) -> Iterator[tuple[SeenToken, SeenToken]]:
    """The tokens of both that have the same text before them and as far as that goes; the last pair is where they
    part. Where one tells in one piece what the other tells in two, nothing is compared until both have caught up.
    """
    mine, theirs = list(one.tokens), list(other.tokens)
    ahead = ""  # what the one that is ahead has told more than the other
    is_mine_ahead = False
    while mine and theirs:
        if not ahead:
            left, right = mine.pop(0), theirs.pop(0)
            is_mine_ahead = len(left.text) > len(right.text)
            longer, shorter = (left.text, right.text) if is_mine_ahead else (right.text, left.text)
            if left.text == right.text or not shorter or not longer.startswith(shorter):
                yield left, right
            if not longer.startswith(shorter):
                return
            ahead = longer[len(shorter) :]
            continue
        text = (theirs if is_mine_ahead else mine).pop(0).text
        if not (ahead.startswith(text) or text.startswith(ahead)):
            return
        if len(text) > len(ahead):
            ahead, is_mine_ahead = text[len(ahead) :], not is_mine_ahead
        else:
            ahead = ahead[len(text) :]


def _apart(mine: SeenToken, theirs: SeenToken) -> float:
    """The largest difference of a log-probability among what is likely: below 2 % it decides nothing."""
    shares, others = _shares(mine), _shares(theirs)
    pairs = [(share, others[text]) for text, share in shares.items() if text in others]
    return max((abs(math.log(one / other)) for one, other in pairs if max(one, other) > 0.02), default=0.0)


def _gap(mine: SeenToken, theirs: SeenToken) -> float | None:
    return _over(mine, {theirs.text})


def _over(token: SeenToken, others: Collection[str]) -> float | None:
    """How much likelier a token was than the likeliest of these, in nats; None where none of them was told."""
    other = max((each.logprob for each in token.top if each.text in others), default=None)
    return None if other is None else token.logprob - other


def _bits(observation: Observation) -> float:
    """Bits per weight by the name of a packing (`Q4_K_M`, `F16`, `awq`); 16 where none is named."""
    name = (observation.quantization or "").lower()
    if not name or any(mark in name for mark in ("bf16", "f16", "f32", "float")):
        return 16.0
    digits = [letter for letter in name if letter.isdigit()]
    if name.startswith(("awq", "gptq", "bitsandbytes", "compressed", "nvfp4", "mxfp4")) and "8" not in digits:
        return 4.5
    if name.startswith("fp8"):
        return 8.0
    return float(digits[0]) + 0.5 if digits and digits[0] in "123456" else 8.0


def _is_noise(parted: Fork, figures: Agreement | None, bits: float) -> bool:
    seen = figures.noise if figures is not None else 0.0
    # A packed model is as noisy as it is seen to be.
    most = max(_NOISE, min(seen * _TIMES, 0.5 if bits >= 15 else 2.0))
    return parted.gap is not None and parted.gap <= most


def _texts(forks: Mapping[str, Fork], chats: int, figures: Agreement | None, bits: float) -> Line:
    what, key = "greedy answers", "answers"
    numbers: dict[str, Any] = {
        "chats": chats,
        "equal": chats - len(forks),
        "forks": {name: parted._asdict() for name, parted in forks.items()},
    }
    if not forks:
        return Line(key, what, Finding.SAME, f"all {chats} are the same, token by token", (), numbers)
    noise = {name: _is_noise(parted, figures, bits) for name, parted in forks.items()}
    sentences = [_in_words(name, parted, noise[name]) for name, parted in forks.items()]
    how = f"{numbers['equal']} of {chats} are the same; {'; '.join(sentences)}"
    if all(noise.values()):
        return Line(key, what, Finding.SAME, how, (), numbers)
    if not any(parted.is_told for name, parted in forks.items() if not noise[name]):
        return Line(key, what, Finding.UNCHECKED, how, (), numbers)
    if bits < 15:
        packed = "one of them is quantised, so its texts may go their own ways: the figures say how far"
        return Line(key, what, Finding.UNCHECKED, f"{how}; {packed}", (), numbers)
    return Line(key, what, Finding.DIFFERS, how, (Fault.OTHER_ANSWERS,), numbers)


def _in_words(name: str, parted: Fork, is_noise: bool) -> str:
    gap = "neither has the other's token among its likeliest"
    if not parted.is_told:
        gap = "within what one engine tells in one piece, so it is not known how close the choice was"
    elif parted.gap is not None:
        gap = f"the choice hangs on {parted.gap:.3f} nats"
    noise = ", less than the number formats differ by" if is_noise else ""
    one, other = parted.texts
    ends = ", one ends where the other goes on" if one.startswith(other) or other.startswith(one) else ""
    return f"{name!r} parts at token {parted.at} ({one!r} and {other!r}{ends}): {gap}{noise}"


def _numbers(figures: Agreement | None, bits: float) -> Line:
    key, what = "numbers", "log-probabilities"
    if figures is None:
        return Line(key, what, Finding.UNCHECKED, "one of the engines tells no log-probabilities")
    told = {"positions": figures.positions, "agreement": figures.agreement, "kl": figures.kl, "apart": figures.noise}
    how = (
        f"same first choice at {figures.agreement:.1%} of {figures.positions} positions, truncated KL divergence "
        f"{figures.kl:.4f} nats, log-probabilities up to {figures.noise:.3f} apart"
    )
    if figures.positions < _ENOUGH:
        return Line(key, what, Finding.UNCHECKED, f"{how}: too few positions to judge", (), told)
    limits = next(((kl, agreement) for least, kl, agreement in _TOLERATED if bits >= least), None)
    if limits is None:
        return Line(key, what, Finding.UNCHECKED, f"{how}: with so few bits per weight that says nothing", (), told)
    packed = "" if bits >= 15 else " (quantised)"
    # A share of few positions is uncertain: two standard errors are left to it.
    slack = 2 * math.sqrt(limits[1] * (1 - limits[1]) / figures.positions)
    if figures.kl <= limits[0] and figures.agreement >= limits[1] - slack:
        return Line(key, what, Finding.SAME, f"{how}{packed}", (), told)
    beyond = (
        f"{how}{packed}: more than the number formats explain (KL up to {limits[0]}, agreement from {limits[1]:.0%})"
    )
    return Line(key, what, Finding.DIFFERS, beyond, (Fault.OTHER_ANSWERS,), told)
