"""app/relay/balancing/affinity.py: which engine gets a request, by what it has computed before."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest

from app.relay.balancing.affinity import MAX_HOLDERS, Affinity, BlockMemory, Contender, PlacedBy, choose
from app.relay.balancing.beginning import MAX_BYTES
from app.relay.planning.plan import OPERATIONS, plan
from app.table import Backend, Key, PublicModel, RouteBy, Table, Target
from backends.endpoint import Endpoint, State

SYSTEM = {"role": "system", "content": "s" * 6000}
ANNE, BERT = Key("anne", "a" * 64), Key("bert", "b" * 64)


def row(name: str, generation: int = 1, *, is_up: bool = True, is_ours: bool = True, address: str = "") -> Backend:
    endpoint = Endpoint(name, generation, address or f"http://{name}/v1", is_ours=is_ours) if is_up else None
    return Backend(name, "vllm", State.READY if is_up else State.FAILED, endpoint=endpoint, can_start=True)


def table(*names: str, route: RouteBy = "prefix", weights: Mapping[str, int] | None = None) -> Table:
    targets = tuple(Target(name, "m", (weights or {}).get(name, 1)) for name in names)
    models = {
        "m": PublicModel("m", targets, ("spare",), route=route),
        "spare": PublicModel("spare", (Target("z", "m"),)),
    }
    return Table(1, models, {}, (), {name: row(name) for name in (*names, "z")})


def with_row(given: Table, changed: Backend) -> Table:
    return msgspec.structs.replace(given, backends={**given.backends, changed.name: changed})


class Relay:
    """What one relay knows: its table, its load, and what it remembers."""

    def __init__(self, known: Table) -> None:
        self.table = known
        self.busy: Counter[str] = Counter()
        self.by: list[PlacedBy] = []
        self.ejected: set[str] = set()
        self.affinity = Affinity(lambda _, by: self.by.append(by))

    def in_flight(self, backend: str) -> int:
        return self.busy[backend]

    def is_ejected(self, target: Target) -> bool:
        return target.backend in self.ejected

    def dice(self) -> float:
        return 0.0

    def tried(self, messages: list[Any]) -> list[str]:
        """Every engine that the request goes to, where each but the last refuses it."""
        return list(self._targets(messages, None, None, {}))

    def goes(
        self, messages: list[Any], key: Key | None = None, headers: Mapping[str, str] | None = None, **body: Any
    ) -> str:
        """Where it is sent."""
        return next(self._targets(messages, key, headers, body))

    def _targets(
        self, messages: list[Any], key: Key | None, headers: Mapping[str, str] | None, body: Mapping[str, Any]
    ) -> Iterator[str]:
        sent = json.dumps({"model": "m", "messages": messages, **body}).encode()
        made = plan(OPERATIONS["/v1/chat/completions"], sent, self.table, key)
        return (target.backend for target in self.affinity.order(self.table, made, self, headers or {}))


def conversation(number: int, turns: int = 1) -> list[dict[str, str]]:
    said = [SYSTEM]
    for turn in range(turns):
        said.append({"role": "user", "content": f"question {turn} of {number}"})
        said.append({"role": "assistant", "content": f"answer {turn} of {number}"})
    return said[:-1]


def placed_at(relay: Relay, name: str, turns: int = 1) -> list[dict[str, str]]:
    """A conversation that an idle relay has placed there."""
    number = next(n for n in range(1000) if relay.goes(conversation(n, turns)) == name)
    return conversation(number, turns + 1)


# -- the choice


def holds(busy: float, held: int = 2000) -> Contender:
    return Contender(busy, held, continues=True)


def agreed(busy: float, held: int = 0) -> Contender:
    return Contender(busy, held, is_agreed=True)


CHOICES: dict[str, tuple[list[Contender], int, PlacedBy]] = {
    "nobody knows it": ([Contender(0), agreed(0)], 1, "hash"),
    "the agreed one is busier": ([Contender(0), agreed(2)], 0, "overflow"),
    "but not by much": ([Contender(0), agreed(1)], 1, "hash"),
    "a conversation stays": ([Contender(0), holds(3)], 1, "prefix"),
    "also where the hash says otherwise": ([agreed(0), holds(2)], 1, "prefix"),
    "a long one stays longer": ([Contender(0), holds(6, 8000)], 1, "prefix"),
    "but not for ever": ([Contender(0), holds(9, 10**6)], 0, "overflow"),
    "longer where all are busy": ([Contender(40), holds(70)], 1, "prefix"),
    "of two that hold it, the idler": ([holds(2), holds(1)], 1, "prefix"),
    "a little that many share changes nothing": ([Contender(0, 4000), agreed(0)], 1, "hash"),
    "much of it does": ([Contender(0, 16000), agreed(0)], 0, "prefix"),
    "not for much more work, though": ([Contender(3, 16000), Contender(0), agreed(0)], 2, "hash"),
    "the busy agreed one gives way to the idle": ([agreed(5, 600), Contender(0, 300)], 1, "overflow"),
}


@pytest.mark.parametrize(("candidates", "index", "by"), CHOICES.values(), ids=CHOICES)
def test_the_one_that_is_worth_its_load_gets_it(candidates: list[Contender], index: int, by: PlacedBy) -> None:
    assert choose(candidates) == (index, by)


# -- prompts


def test_a_conversation_stays_and_new_ones_are_spread_alike_in_every_relay() -> None:
    one, other = Relay(table("a", "b", "c")), Relay(table("c", "b", "a"))
    first = [one.goes(conversation(n)) for n in range(60)]

    assert [other.goes(conversation(n)) for n in range(60)] == first
    assert set(first) == {"a", "b", "c"}
    for turns in (2, 3):
        assert [one.goes(conversation(n, turns)) for n in range(60)] == first
    assert one.by == ["hash"] * 60 + ["prefix"] * 120


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_prompt_of_which_nothing_is_looked_at_goes_somewhere(is_alone: bool) -> None:
    relay = Relay(msgspec.structs.replace(table("a", "b"), is_alone=is_alone))
    sent = b'{"model": "m", "messages": [' + b" " * MAX_BYTES + b'{"role": "user", "content": "hi"}]}'
    made = plan(OPERATIONS["/v1/chat/completions"], sent, relay.table, None)

    order = [target.backend for target in relay.affinity.order(relay.table, made, relay, {})]

    assert {"a", "b"} <= set(order)


def test_a_busy_engine_loses_a_conversation_once_and_it_stays_where_it_went() -> None:
    relay = Relay(table("a", "b"))
    talk = placed_at(relay, "a")
    relay.busy["a"] = 9

    assert relay.goes(talk) == "b"
    relay.busy.clear()
    assert relay.goes(talk) == "b"
    assert relay.by[-2:] == ["overflow", "prefix"]


def test_a_start_of_many_conversations_at_once_is_spread_by_load_too() -> None:
    relay = Relay(table("a", "b"))

    for number in range(40):
        relay.busy[relay.goes(conversation(number))] += 1

    assert abs(relay.busy["a"] - relay.busy["b"]) <= 6


@pytest.mark.parametrize("how", ["down", "ejected", "gone"])
def test_who_does_not_serve_is_passed_over_and_its_conversations_move_once(how: str) -> None:
    relay = Relay(table("a", "b", "c"))
    talks = [placed_at(relay, name) for name in "abc"]
    whole = relay.table
    if how == "ejected":
        relay.ejected = {"a"}
    else:
        left = with_row(whole, row("a", is_up=False))
        relay.table = left if how == "down" else msgspec.structs.replace(left, models=table("b", "c").models)

    moved = relay.goes(talks[0])
    assert moved in "bc"
    assert [relay.goes(talk) for talk in talks[1:]] == ["b", "c"]
    relay.table, relay.ejected = with_row(whole, row("a", 2)), set()
    assert [relay.goes(talk) for talk in talks] == [moved, "b", "c"]


def test_another_start_of_an_engine_remembers_nothing() -> None:
    relay = Relay(table("a", "b"))
    talk = placed_at(relay, "a")
    relay.busy["a"] = 9
    assert relay.goes(talk) == "b"
    relay.busy.clear()

    relay.table = with_row(with_row(relay.table, row("b", 2)), row("a", 2))

    assert relay.goes(talk) == "a"
    assert relay.by[-1] == "hash"


def test_one_that_refuses_is_followed_by_the_others_and_who_takes_it_keeps_it() -> None:
    relay = Relay(table("a", "b"))
    talk = placed_at(relay, "a")

    assert relay.tried(talk) == ["a", "b", "z"]
    assert relay.goes(talk) == "b"


def test_conversations_of_different_keys_have_nothing_to_do_with_each_other() -> None:
    relay = Relay(table("a", "b"))
    for number in range(64):
        relay.goes(conversation(number), ANNE)
    assert relay.by == ["hash"] * 64

    again = [relay.goes(conversation(number, 2), BERT) for number in range(64)]

    assert relay.by == ["hash"] * 128
    assert sum(relay.goes(conversation(n, 2), ANNE) == again[n] for n in range(64)) in range(16, 48)


def test_weights_are_shares_of_conversations() -> None:
    relay = Relay(table("a", "b", weights={"a": 9, "b": 1}))

    first = Counter(relay.goes(conversation(number)) for number in range(600))

    assert first["a"] / 600 == pytest.approx(0.9, abs=0.04)


def test_several_gateways_agree_on_engines_that_are_somebody_elses_by_their_address() -> None:
    def with_addresses(*addresses: str) -> dict[str, str]:
        known = table("pods", "pods#2")
        for name, address in zip(("pods", "pods#2"), addresses, strict=True):
            known = with_row(known, row(name, is_ours=False, address=address))
        relay = Relay(known)
        where = dict(zip(("pods", "pods#2"), addresses, strict=True))
        return {str(n): where[relay.goes(conversation(n))] for n in range(40)}

    assert with_addresses("http://x/v1", "http://y/v1") == with_addresses("http://y/v1", "http://x/v1")


def test_what_is_not_written_goes_to_the_least_busy() -> None:
    relay = Relay(table("a", "b"))
    relay.busy["a"] = 1
    embeddings = plan(OPERATIONS["/v1/embeddings"], b'{"model": "m", "input": "x"}', relay.table, None)

    assert [next(iter(relay.affinity.order(relay.table, embeddings, relay, {}))).backend for _ in "123"] == ["b"] * 3
    assert relay.by == ["least_busy"] * 3


def test_without_the_rule_only_the_load_counts() -> None:
    relay = Relay(table("a", "b", route="least_busy"))
    talk = [conversation(1, turns) for turns in (1, 2, 3)]
    for name, messages in zip("aba", talk, strict=True):
        relay.busy = Counter({other: 1 for other in "ab" if other != name})
        assert relay.goes(messages) == name
    assert len(relay.affinity.memory) == 0


def test_where_one_serves_nothing_is_placed_but_it_is_remembered() -> None:
    relay = Relay(with_row(table("a", "b"), row("a", is_up=False)))
    talks = [conversation(number) for number in range(16)]
    assert {relay.goes(talk) for talk in talks} == {"b"}
    assert relay.by == []

    relay.table = table("a", "b")

    assert {relay.goes(talk) for talk in talks} == {"b"}


def test_where_none_serves_the_order_is_as_ever() -> None:
    known = with_row(with_row(table("a", "b"), row("a", is_up=False)), row("b", is_up=False))
    relay = Relay(known)

    assert sorted(relay.tried(conversation(1))) == ["a", "b", "z"]
    assert len(relay.affinity.memory) == 0


# -- sessions


def test_a_session_goes_to_one_engine_whatever_it_says_and_however_busy_that_is() -> None:
    relay = Relay(table("a", "b", "c", route="session"))
    where = {str(n): relay.goes(conversation(n), headers={"x-session-id": str(n)}) for n in range(30)}
    assert set(where.values()) == {"a", "b", "c"}

    relay.busy["a"] = 50

    for session, name in where.items():
        assert relay.goes(conversation(99), headers={"x-session-id": session}) == name
    assert set(relay.by) == {"session"}


def test_without_the_header_the_user_counts_and_without_both_the_load() -> None:
    relay, other = (Relay(table("a", "b", route="session")) for _ in range(2))
    where = [relay.goes(conversation(n), user=f"user {n}") for n in range(20)]
    assert set(where) == {"a", "b"}
    assert [other.goes(conversation(0), user=f"user {n}") for n in range(20)] == where
    assert relay.goes(conversation(1), headers={"x-session-id": "s"}, user="user 1") == relay.goes(
        conversation(2), headers={"x-session-id": "s"}, user="user 2"
    )
    relay.busy["a"] = 1

    assert relay.goes(conversation(1)) == relay.goes(conversation(1), user="") == "b"
    assert relay.by[-2:] == ["least_busy"] * 2


def test_a_session_moves_once_when_its_engine_does_not_serve() -> None:
    relay = Relay(table("a", "b", "c", route="session"))
    session = next(str(n) for n in range(99) if relay.goes(conversation(1), headers={"x-session-id": str(n)}) == "a")
    whole = relay.table
    relay.table = with_row(whole, row("a", is_up=False))
    moved = relay.goes(conversation(1), headers={"x-session-id": session})
    assert moved != "a"

    relay.table = with_row(whole, row("a", 2))

    assert relay.goes(conversation(1), headers={"x-session-id": session}) == moved


# -- several relays and gateways


def team(count: int, known: Table) -> list[Relay]:
    return [Relay(msgspec.structs.replace(known, is_alone=False)) for _ in range(count)]


@pytest.mark.parametrize("route", ["prefix", "session"])
def test_gateways_that_get_the_turns_in_turn_send_them_to_one_engine(route: RouteBy) -> None:
    gateways = team(3, table("a", "b", "c", route=route))

    for number in range(20):
        asked = {"x-session-id": str(number)}
        where = {gateways[turn % 3].goes(conversation(number, turn + 1), headers=asked) for turn in range(9)}
        assert len(where) == 1


@pytest.mark.parametrize("route", ["prefix", "session"])
@pytest.mark.parametrize("how", ["ejected", "away"])
def test_what_one_gateway_had_to_send_elsewhere_comes_back_to_where_the_others_send_it(
    route: RouteBy, how: str
) -> None:
    """It passes over an engine that the others never saw fail."""
    whole = msgspec.structs.replace(table("a", "b", "c", route=route), is_alone=False)
    one, other = team(2, whole)
    asked = {"x-session-id": "s"}
    number = next(n for n in range(1000) if one.goes(conversation(n), headers=asked) == "a" or route == "session")
    place = other.goes(conversation(number, 2), headers=asked)
    assert one.goes(conversation(number, 3), headers=asked) == place
    if how == "ejected":
        one.ejected = {place}
    else:
        one.table = with_row(whole, row(place, is_up=False))
    elsewhere = one.goes(conversation(number, 4), headers=asked)
    assert elsewhere != place
    assert one.goes(conversation(number, 5), headers=asked) == elsewhere
    assert other.goes(conversation(number, 6), headers=asked) == place

    one.ejected, one.table = set(), whole

    assert [one.goes(conversation(number, 7), headers=asked), other.goes(conversation(number, 8), headers=asked)] == [
        place
    ] * 2


def test_a_gateway_that_never_saw_a_conversation_knows_that_its_engine_is_worth_waiting_for() -> None:
    one, other = team(2, table("a", "b"))
    said = placed_at(one, "a", turns=3)

    other.busy["a"] = 3

    assert other.goes(said) == "a"
    assert other.goes(conversation(5000)) == "b"


def test_a_conversation_that_load_had_moved_goes_back_once_load_allows_it() -> None:
    (one,) = team(1, table("a", "b"))
    said = placed_at(one, "a")
    one.busy["a"] = 30
    assert one.goes(said) == "b"
    one.busy["a"] = 2

    assert one.goes(said) == "b"
    one.busy["a"] = 1
    assert one.goes(said) == "a"


# -- what is remembered


def test_the_newest_blocks_are_kept_and_the_oldest_forgotten() -> None:
    memory = BlockMemory(most=100)

    for block in range(1000):
        memory.note([block, 5000], ("a", 1))

    assert len(memory) <= 100
    assert memory.holders(999) == memory.holders(5000) == (("a", 1),)
    assert memory.holders(0) == ()


def test_a_block_that_was_used_again_is_new() -> None:
    memory = BlockMemory(most=10)
    for block in range(40):
        memory.note([block, -1], ("a", 1))

    assert memory.holders(-1) == (("a", 1),)


def test_each_engine_that_has_a_block_is_known_once_and_the_latest_is_last() -> None:
    memory = BlockMemory()
    for holder in [("a", 1), ("b", 1), ("a", 1), ("a", 2), ("c", 1), ("b", 1)]:
        memory.note([7], holder)

    assert memory.holders(7) == (("a", 2), ("c", 1), ("b", 1))
    for number in range(50):
        memory.note([7], (f"engine {number}", 1))
    assert len(memory.holders(7)) == MAX_HOLDERS
    assert memory.holders(7)[-1] == ("engine 49", 1)
