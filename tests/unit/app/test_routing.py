"""Which engines may serve a name, in which order, and which names a key may see."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from app.routing import may_use, nearest, order, resolve, visible
from app.table import Backend, Key, PublicModel, Table, Target, Wildcard
from backends.endpoint import Endpoint, State


def backend(name: str, *, is_up: bool = True, **fields: Any) -> Backend:
    endpoint = Endpoint(name, 1, "http://127.0.0.1:1/v1") if is_up else None
    state = State.READY if is_up else State.STOPPED
    return Backend(**{"name": name, "kind": "vllm", "state": state, "endpoint": endpoint, **fields})


def table(**fields: Any) -> Table:
    known = {"version": 1, "models": {}, "aliases": {}, "wildcards": (), "backends": {}}
    return Table(**{**known, **fields})


def model(name: str, *targets: Target | str, fallbacks: tuple[str, ...] = ()) -> PublicModel:
    return PublicModel(name, tuple(Target(t, name) if isinstance(t, str) else t for t in targets), fallbacks)


def models(*given: PublicModel) -> dict[str, PublicModel]:
    return {each.name: each for each in given}


class View:
    """Requests in flight, ejected backends and dice as the test says."""

    def __init__(
        self, dice: Callable[[], float] = lambda: 0.0, counts: Mapping[str, int] | None = None, ejected: str = ""
    ) -> None:
        self.dice = dice
        self._counts = counts or {}
        self._ejected = ejected

    def in_flight(self, backend: str) -> int:
        return self._counts.get(backend, 0)

    def is_ejected(self, target: Target) -> bool:
        return target.backend in self._ejected


def always(point: float) -> Callable[[], float]:
    return lambda: point


NAMED = table(
    models=models(model("base", "gpu"), model("ollama/own", "gpu")),
    aliases={"gpt-4": "base"},
    wildcards=(Wildcard("ollama/", "daemon"), Wildcard("ollama/big/", "other"), Wildcard("x", "open")),
    backends={
        "gpu": backend("gpu"),
        "daemon": backend("daemon", models=("Qwen2.5:7b", "llama:latest", "big/one"), is_strict=True),
        "other": backend("other", models=("one:latest",), is_strict=True),
        "open": backend("open", models=("listed",)),
    },
)

# a client's name → (public name, metrics label, backend, engine's name), None: no such model
NAMES: dict[str, tuple[str, str, str, str] | None] = {
    "base": ("base", "base", "gpu", "base"),
    "gpt-4": ("base", "base", "gpu", "base"),
    "Base": None,
    "ollama/own": ("ollama/own", "ollama/own", "gpu", "ollama/own"),
    "ollama/Qwen2.5:7b": ("ollama/Qwen2.5:7b", "ollama/*", "daemon", "Qwen2.5:7b"),
    "ollama/qwen2.5:7B": ("ollama/qwen2.5:7B", "ollama/*", "daemon", "qwen2.5:7B"),
    "ollama/llama": ("ollama/llama", "ollama/*", "daemon", "llama"),
    "ollama/llama:latest": ("ollama/llama:latest", "ollama/*", "daemon", "llama:latest"),
    "ollama/llama:7b": None,
    "ollama/qwen2.5": None,
    "ollama/big/one": ("ollama/big/one", "ollama/big/*", "other", "one"),
    "ollama/big/two": None,
    "ollama/": None,
    "ollama": None,
    "xanything": ("xanything", "x*", "open", "anything"),
    "x": None,
    "": None,
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_a_name_is_found_exactly_then_by_alias_then_by_the_longest_wildcard(
    name: str, expected: tuple[str, str, str, str] | None
) -> None:
    resolved = resolve(NAMED, name)

    if expected is None:
        assert resolved is None
    else:
        assert resolved is not None
        target = resolved.model.targets[0]
        assert (resolved.name, resolved.label, target.backend, target.model) == expected


def test_a_shorter_wildcard_serves_what_the_longer_ones_strict_engine_does_not_have() -> None:
    backends = {**NAMED.backends, "other": backend("other", models=(), is_strict=True)}
    resolved = resolve(table(wildcards=NAMED.wildcards, backends=backends), "ollama/big/one")

    assert resolved is not None
    assert resolved.label == "ollama/*"


def test_a_strict_engine_that_lists_nothing_yet_has_nothing() -> None:
    one = table(wildcards=(Wildcard("o/", "d"),), backends={"d": backend("d", models=None, is_strict=True)})

    assert resolve(one, "o/m") is None


def test_a_wildcard_of_a_backend_that_is_gone_serves_nothing() -> None:
    assert resolve(table(wildcards=(Wildcard("o/", "gone"),)), "o/m") is None


@pytest.mark.parametrize("default", ["base", "gpt-4", "xm"])
def test_an_unknown_name_goes_to_the_default_model_only_when_there_is_one(default: str) -> None:
    resolved = resolve(Table(**{**_fields(NAMED), "default_model": default}), "nonsense")

    assert resolved is not None
    assert resolved.label == {"base": "base", "gpt-4": "base", "xm": "x*"}[default]
    assert resolve(NAMED, "nonsense") is None


def _fields(one: Table) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__}


# -- order


UP, STARTS, DOWN = backend("up"), backend("starts", is_up=False, can_start=True), backend("down", is_up=False)
SLEEPS = backend("sleeps", is_up=False, can_start=True, state=State.SLEEPING)
HALF = backend("half", is_up=False, state=State.READY)
RANKED = {each.name: each for each in (UP, STARTS, DOWN, SLEEPS, HALF)}


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["down", "starts", "up"], ["up", "starts", "down"]),
        (["gone", "up"], ["up", "gone"]),
        (["half", "sleeps"], ["sleeps", "half"]),
        (["down"], ["down"]),
    ],
)
def test_what_serves_comes_first_then_what_can_be_started_then_the_rest(
    targets: list[str], expected: list[str]
) -> None:
    one = model("m", *targets)

    ordered = order(table(models=models(one), backends=RANKED), one, View())

    assert [target.backend for target in ordered] == expected


def test_fallbacks_come_in_their_order_after_the_models_own_and_each_engine_once() -> None:
    main = model("main", Target("a", "x"), fallbacks=("second", "alias", "unknown", "main", "again"))
    others = [
        model("second", Target("b", "x"), Target("a", "x")),
        model("third", Target("a", "y")),
        model("again", "b"),
    ]
    again = models(*others) | {"again": PublicModel("again", (Target("b", "x"), Target("c", "z")))}
    one = table(
        models={"main": main, **again},
        aliases={"alias": "third"},
        backends={n: backend(n) for n in "abc"},
    )

    targets = [(t.backend, t.model) for t in order(one, main, View())]

    assert targets == [("a", "x"), ("b", "x"), ("a", "y"), ("c", "z")]


def test_a_fallbacks_own_fallbacks_follow_it_and_a_cycle_ends() -> None:
    known = models(
        model("main", "a", fallbacks=("second", "last")),
        model("second", "b", fallbacks=("third", "main")),
        model("third", "c", fallbacks=("second",)),
        model("last", "d"),
    )
    one = table(models=known, backends={n: backend(n) for n in "abcd"})

    backends = [target.backend for target in order(one, known["main"], View())]

    assert backends == ["a", "b", "c", "d"]


HAS_KEY = {"bounded": ("main", "last"), "patterned": ("ma*", "la*"), "free": None}


@pytest.mark.parametrize("who", HAS_KEY)
@pytest.mark.parametrize("for_all", [False, True])
def test_a_fallback_that_the_key_may_not_use_is_passed_over_unless_it_is_for_all(who: str, for_all: bool) -> None:
    """A key for `main` alone used to be answered by whatever stood behind it."""
    main = model("main", "a", fallbacks=("hidden",))
    known = models(
        msgspec.structs.replace(main, fallbacks_for_all=("hidden",) if for_all else ()),
        model("hidden", "b", fallbacks=("deeper", "last")),
        model("deeper", "c"),
        model("last", "d"),
    )
    one = table(models=known, backends={n: backend(n) for n in "abcd"})
    key = Key("k", "0" * 64, HAS_KEY[who])

    backends = [target.backend for target in order(one, known["main"], View(), key)]

    assert "".join(backends) == ("abcd" if who == "free" else "abd" if for_all else "ad")


def test_another_road_may_lead_to_what_one_was_closed_for() -> None:
    known = models(
        model("main", "a", fallbacks=("shared", "open")),
        msgspec.structs.replace(model("open", "b", fallbacks=("shared",)), fallbacks_for_all=("shared",)),
        model("shared", "c"),
    )
    one = table(models=known, backends={n: backend(n) for n in "abc"})

    targets = order(one, known["main"], View(), Key("k", "0" * 64, ("main", "open")))

    assert [target.backend for target in targets] == ["a", "b", "c"]


def test_among_equal_weights_the_one_with_the_fewest_requests_serves() -> None:
    one = model("m", "a", "b", "c")
    counts = {"a": 3, "b": 1, "c": 2}
    known = table(models=models(one), backends={n: backend(n) for n in "abc"})

    for point in (0.0, 0.4, 0.99):
        backends = [t.backend for t in order(known, one, View(always(point), counts))]
        assert backends == ["b", "c", "a"]


# ejected backends → who is tried, where a, b and c serve and d can be started
EJECTED = {
    "": "abcd",
    "a": "bcd",
    "ab": "cd",
    "abc": "abcd",  # never the last one that serves
    "abcd": "abcd",
    "d": "abcd",
}


@pytest.mark.parametrize("ejected", EJECTED)
def test_who_is_ejected_is_passed_over_unless_nobody_else_serves(ejected: str) -> None:
    one = model("m", *"abcd")
    rows = {n: backend(n) for n in "abc"} | {"d": backend("d", is_up=False, can_start=True)}
    view = View(always(0.5), {"a": 0, "b": 1, "c": 2}, ejected)

    targets = order(table(models=models(one), backends=rows), one, view)

    assert "".join(target.backend for target in targets) == EJECTED[ejected]


def test_an_only_target_is_never_passed_over_for_a_fallback() -> None:
    known = models(model("main", "a", fallbacks=("spare",)), model("spare", "b"))
    one = table(models=known, backends={n: backend(n) for n in "ab"})

    targets = order(one, known["main"], View(ejected="a"))

    assert [target.backend for target in targets] == ["a", "b"]


@pytest.mark.parametrize("weights", [(9, 1), (1, 1), (5, 3, 2), (1, 1, 8)])
def test_targets_get_their_share_of_the_requests(weights: tuple[int, ...]) -> None:
    targets = [Target(f"b{at}", "m", weight) for at, weight in enumerate(weights)]
    one = model("m", *targets)
    known = table(models=models(one), backends={t.backend: backend(t.backend) for t in targets})
    dice = random.Random(4711).random

    first = Counter(next(iter(order(known, one, View(dice)))).backend for _ in range(4000))

    for target in targets:
        assert first[target.backend] / 4000 == pytest.approx(target.weight / sum(weights), abs=0.03)


def test_every_target_is_tried_once_whatever_the_dice_say() -> None:
    targets = [Target(f"b{at}", "m", weight) for at, weight in enumerate((1, 5, 5, 2))]
    one = model("m", *targets)
    known = table(models=models(one), backends={t.backend: backend(t.backend) for t in targets})
    throws: list[Callable[[], float]] = [lambda: 0.0, lambda: 0.999999, random.Random(1).random]

    for dice in throws:
        assert sorted(t.backend for t in order(known, one, View(dice))) == ["b0", "b1", "b2", "b3"]


# -- keys


KEYS: dict[str, tuple[tuple[str, ...] | None, dict[str, bool]]] = {
    "all": (None, {"base": True, "ollama/x": True}),
    "none": ((), {"base": False}),
    "one": (("base",), {"base": True, "base2": False, "bas": False}),
    "pattern": (("ollama/*",), {"ollama/x": True, "ollama/": True, "ollama": False, "base": False}),
    "everything": (("*",), {"base": True}),
}


@pytest.mark.parametrize(("listed", "names"), KEYS.values(), ids=KEYS)
def test_a_key_may_use_the_names_and_patterns_in_its_list(
    listed: tuple[str, ...] | None, names: dict[str, bool]
) -> None:
    key = Key("k", "0" * 64, listed)

    assert {name: may_use(key, name) for name in names} == names
    assert may_use(None, "anything")


def test_the_list_of_models_has_every_model_once_under_its_shortest_name() -> None:
    one = table(
        models=models(PublicModel("tuned", (Target("daemon", "llama:latest"),)), model("base", "gpu"), model("empty")),
        aliases={"gpt-4": "base"},
        wildcards=(Wildcard("ollama/", "daemon"), Wildcard("o/", "daemon"), Wildcard("gone/", "gone")),
        backends=NAMED.backends,
    )

    assert visible(one, None) == {
        "tuned": "daemon",
        "base": "gpu",
        "o/Qwen2.5:7b": "daemon",
        "o/big/one": "daemon",
    }


@pytest.mark.parametrize("name", visible(NAMED, None))
def test_every_listed_name_is_one_that_a_request_may_use(name: str) -> None:
    resolved = resolve(NAMED, name)

    assert resolved is not None
    assert resolved.model.targets[0].backend == visible(NAMED, None)[name]


def test_a_key_sees_only_what_it_may_use() -> None:
    key = Key("k", "0" * 64, ("base", "ollama/q*"))

    assert visible(NAMED, key) == {"base": "gpu"}
    assert visible(NAMED, Key("k", "0" * 64, ("ollama/Q*",))) == {"ollama/Qwen2.5:7b": "daemon"}


def test_the_nearest_names_are_those_the_key_may_see() -> None:
    assert nearest(NAMED, None, "bass") == ["base"]
    assert nearest(NAMED, None, "gpt-5")[0] == "gpt-4"
    assert nearest(NAMED, Key("k", "0" * 64, ("ollama/*",)), "bass") == []
    assert nearest(NAMED, Key("k", "0" * 64, ("ollama/*",)), "gpt-5") == []
    assert nearest(NAMED, None, "zzzzzz") == []


def test_a_long_name_is_compared_by_its_beginning_only() -> None:
    assert nearest(NAMED, None, "b" * 1_000_000) == []
