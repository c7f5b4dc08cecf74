"""Parts of parallel calls, put in an order in which each call is told in one go."""

from __future__ import annotations

import random
from itertools import pairwise

from app.dialects.call_order import MAX_LOOKS, CallOrderer, OrderedPart
from backends.http.delta import CallDelta, Delta


def part(at: int, arguments: str, *, is_new: bool = False) -> Delta:
    return Delta(calls=[CallDelta(at, is_new, f"c{at}", "f" if is_new else "", arguments)])


def said(parts: list[OrderedPart]) -> list[tuple[int | None, str]]:
    return [(p.call.at, p.call.arguments) if p.call is not None else (None, p.text) for p in parts]


def test_calls_one_after_the_other_are_told_as_they_come() -> None:
    turns = CallOrderer()

    assert said(turns.next(Delta(text="a"))) == [(None, "a")]
    assert said(turns.next(part(0, '{"a":', is_new=True))) == [(0, '{"a":')]
    assert said(turns.next(part(0, " 1}"))) == [(0, " 1}")]
    assert said(turns.next(part(1, "{}", is_new=True))) == [(1, "{}")]
    assert turns.rest() == []


def test_what_comes_while_a_call_is_open_waits_for_it() -> None:
    turns = CallOrderer()
    turns.next(part(0, '{"a":', is_new=True))

    assert turns.next(part(1, '{"b":', is_new=True)) == []
    assert turns.next(Delta(text="t")) == []
    assert said(turns.next(part(0, "1}"))) == [(0, "1}"), (1, '{"b":')]
    assert said(turns.next(part(1, "2}"))) == [(1, "2}"), (None, "t")]


def test_what_never_becomes_whole_is_told_at_the_end() -> None:
    turns = CallOrderer()
    turns.next(part(0, '{"a":', is_new=True))
    turns.next(part(1, "{}", is_new=True))
    turns.next(Delta(text="t"))

    assert said(turns.rest()) == [(1, "{}"), (None, "t")]


def test_a_call_is_not_decoded_for_ever_to_see_whether_it_is_whole() -> None:
    turns = CallOrderer()
    turns.next(part(0, '{"a":[', is_new=True))
    turns.next(part(1, "{}", is_new=True))

    for _ in range(MAX_LOOKS):
        turns.next(part(0, "{}"))

    assert said(turns.next(part(0, "]}"))) == [(0, "]}")]
    assert said(turns.rest()) == [(1, "{}")]


def test_every_order_of_the_parts_gives_every_call() -> None:
    dice = random.Random(7)
    arguments = {at: f'{{"number": {at}, "text": "{{}}"}}' for at in range(3)}
    for _ in range(200):
        left = {at: list(text) for at, text in arguments.items()}
        turns, out, seen = CallOrderer(), [], set()
        while any(left.values()):
            at = dice.choice([at for at, letters in left.items() if letters])
            out += turns.next(part(at, left[at].pop(0), is_new=at not in seen))
            seen.add(at)
        out += turns.rest()

        order = [p.call.at for p in out if p.call is not None]
        assert sum(one != other for one, other in pairwise(order)) == 2
        for at, text in arguments.items():
            assert "".join(p.call.arguments for p in out if p.call is not None and p.call.at == at) == text
