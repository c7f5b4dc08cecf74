"""Whether a judge's judgements say anything: each pair of answers was shown in both orders. Pure.

A judge that goes by the answers names the same model both times; one that goes by the place names the same place, and
so contradicts itself about the model; one that tosses a coin does either equally often. Therefore a judge is useful
where it names one model both times clearly more often than one place both times (sign test, 5 %).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from app.comparison.analysis.findings import Judging, Outcome
from app.comparison.judging.judge import Judgement
from app.statistics.intervals import Interval, wilson
from app.statistics.paired import paired_interval, sign_test

_LEVEL: Final = 0.05


class PairOfJudgements(NamedTuple):
    """The judgements of one question: the first model shown first, and shown second."""

    one: Judgement
    other: Judgement

    @property
    def agrees(self) -> bool:
        """Whether the judge said the same of the models both times."""
        return self.one.winner == self.other.winner

    @property
    def winner(self) -> str | None:
        """The model that it named both times."""
        return self.one.winner if self.agrees else None


def judged(judge: str, models: Sequence[str], judgements: Iterable[Judgement]) -> tuple[Judging, ...]:
    """What the judge's judgements come to, for each further model against the first."""
    all_of_them = list(judgements)
    return tuple(_judging(judge, models[0], other, all_of_them) for other in models[1:])


def pairs_of(first: str, other: str, judgements: Iterable[Judgement]) -> tuple[list[PairOfJudgements], int]:
    """The pairs that can be read both times, and how many questions have none."""
    latest = {(each.question, each.first, each.second): each for each in judgements}
    questions = list(dict.fromkeys(question for question, *names in latest if {first, other} == {*names}))
    pairs = []
    for question in questions:
        one, two = latest.get((question, first, other)), latest.get((question, other, first))
        if one is not None and two is not None and one.said is not None and two.said is not None:
            pairs.append(PairOfJudgements(one, two))
    return pairs, len(questions) - len(pairs)


def is_useful(pairs: Sequence[PairOfJudgements]) -> bool:
    """Whether it goes by the answers, as far as so many pairs can show it."""
    by_model = sum(pair.winner is not None for pair in pairs)
    by_place = sum(pair.one.said == pair.other.said and pair.one.said != "tie" for pair in pairs)
    return by_model > by_place and sign_test(by_model, by_place) < _LEVEL


def _judging(judge: str, first: str, other: str, judgements: Sequence[Judgement]) -> Judging:
    pairs, errors = pairs_of(first, other, judgements)
    count = len(pairs)
    useful = is_useful(pairs)
    wins = sum(pair.winner == other for pair in pairs)
    losses = sum(pair.winner == first for pair in pairs)
    ties = count - wins - losses
    agreement = sum(pair.agrees for pair in pairs)
    decided = [each for pair in pairs for each in pair if each.said != "tie"]
    share = (wins + ties / 2) / count if count else 0.5
    agrees, decides = wilson(agreement, count), _share_interval(wins, ties, losses)
    return Judging(
        judge=judge,
        model=other,
        against=first,
        pairs=count,
        errors=errors,
        agreement=agreement / count if count else 0.0,
        agreement_low=agrees.low,
        agreement_high=agrees.high,
        first_share=sum(each.said == "first" for each in decided) / len(decided) if decided else None,
        is_useful=useful,
        wins=wins,
        ties=ties,
        losses=losses,
        win_share=share,
        low=decides.low,
        high=decides.high,
        outcome=_outcome(wins, losses, useful=useful),
    )


def _outcome(wins: int, losses: int, *, useful: bool) -> Outcome:
    if not useful:
        return "too_few" if wins + losses == 0 else "no_difference"
    if sign_test(wins, losses) >= _LEVEL:
        return "no_difference"
    return "better" if wins > losses else "worse"


def _share_interval(wins: int, ties: int, losses: int) -> Interval:
    """Of the share of wins, ties as halves."""
    if wins + ties + losses < 2:
        return Interval(0.0, 1.0)
    interval = paired_interval([1.0] * wins + [0.5] * ties + [0.0] * losses)
    return Interval(max(0.0, interval.low), min(1.0, interval.high))
