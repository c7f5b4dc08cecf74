"""What a relay counts and how it stands on the page, held against prometheus_client's own series and page."""

from __future__ import annotations

import math
import os
import random
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.errors import outcome
from app.metrics import (
    ALARMING,
    CONTINUED_AS,
    FAMILIES,
    MOST_KEYS,
    OTHER_KEYS,
    OUTCOMES,
    PLACED_BY,
    Metrics,
)
from app.shared_counters import FIRST_BYTES, CounterReader, Family, Labelled, SharedCounters, create, series_key
from app.supervisor.metrics.relay_counters import RelayCounters
from app.table import Backend, Budget, Key, KeyLimits, PublicModel, Table, Target
from backends import errors as backend_errors
from backends.endpoint import State
from tests import ROOT

# Of labels and help: what has to be escaped, and what need not.
TEXTS: Final = ("", "plain", 'a "quoted" \\ one', "two\nlines", "größe 東京", "{a=b},c", "\\n")
ODD: Final = Family("histogram", "odd_seconds", "A \\ and\nanother line.", ("b", "lf", "a"), (0.5, 1.0, 1e7))
BARE: Final = Family("counter", "bare_total", "Without a label.")
BARE_BY_NUMBER: Final = Family("counter", "numbered_total", "By its number.", ("number",))
THEIRS: Final = {
    "counter": prometheus_client.Counter,
    "gauge": prometheus_client.Gauge,
    "histogram": prometheus_client.Histogram,
}
ACTS: Final = {"counter": ("inc",), "gauge": ("inc", "dec", "set"), "histogram": ("observe",)}


@pytest.fixture
def counters() -> Iterator[tuple[RelayCounters, SharedCounters]]:
    """The supervisor's side and the relay's."""
    all_relays = RelayCounters()
    descriptor = all_relays.open()
    yield all_relays, SharedCounters(descriptor)
    all_relays.close(descriptor)


class Both:
    """One series, kept by us and by prometheus_client."""

    def __init__(self, ours: Labelled[Any], theirs: Any, labels: tuple[str, ...]) -> None:
        self._ours = ours[labels]
        self._theirs = theirs.labels(*labels) if labels else theirs

    def count(self, act: str, value: float) -> None:
        """The same on both sides."""
        getattr(self._ours, act)(value)
        getattr(self._theirs, act)(value)


class Pair:
    """The relay's memory and a registry of prometheus_client, which keep the same series."""

    def __init__(self, counters: SharedCounters) -> None:
        self._counters = counters
        self._registry = CollectorRegistry()

    def family(self, family: Family) -> Callable[[tuple[str, ...]], Both]:
        """What makes a series of this family by its labels, or returns it again."""
        more = {"buckets": family.bounds} if family.kind == "histogram" else {}
        ours: Labelled[Any] = getattr(self._counters, f"{family.kind}s")(family)
        kind: Any = THEIRS[family.kind]
        theirs = kind(family.name, family.help_text, family.labels, registry=self._registry, **more)
        return lambda labels: Both(ours, theirs, labels)

    def theirs(self) -> str:
        """prometheus_client's page, without the times at which series were made: those are one process's."""
        lines = generate_latest(self._registry).decode().splitlines(keepends=True)
        return "".join(line for line in lines if "_created" not in line)


def _value(dice: random.Random, bounds: tuple[float, ...]) -> float:
    """Below, on, between and above bounds; small, large and whole."""
    return dice.choice([0.0, *bounds, dice.expovariate(1.0), dice.expovariate(1e-7), float(dice.randrange(2_000_000))])


@pytest.mark.parametrize("seed", range(10))
def test_the_page_is_that_of_prometheus_client(seed: int, counters: tuple[RelayCounters, SharedCounters]) -> None:
    pair, dice = Pair(counters[1]), random.Random(seed)
    for family in (*FAMILIES, ODD, BARE):
        series_of = pair.family(family)
        for _ in range(dice.randrange(1, 5)):
            series = series_of(tuple(dice.choice(TEXTS) for _ in family.labels))
            for _ in range(dice.randrange(9)):
                series.count(dice.choice(ACTS[family.kind]), _value(dice, family.bounds))

    assert counters[0].render().decode() == pair.theirs()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_is_written_as_prometheus_client_writes_it(
    value: float, counters: tuple[RelayCounters, SharedCounters]
) -> None:
    pair = Pair(counters[1])
    pair.family(Family("gauge", "odd", "Odd."))(()).count("set", value)

    assert counters[0].render().decode() == pair.theirs()


def test_two_relays_that_count_the_same_are_added_up_and_a_third_has_more() -> None:
    page = RelayCounters()
    descriptors = [page.open() for _ in range(3)]
    relays = [Metrics(SharedCounters(descriptor)) for descriptor in descriptors]
    for relay in relays:
        relay.of("chat", "m", "b").duration.observe(0.3)
    relays[2].of("chat", "n", "b").in_flight.inc()

    lines = page.render().decode().splitlines()
    for descriptor in descriptors:
        page.close(descriptor)

    of_m, of_n = [
        f'gen_ai_operation_name="chat",gen_ai_request_model="{model}",modelport_backend="b"' for model in "mn"
    ]
    assert f'gen_ai_server_request_duration_seconds_count{{error_type="",{of_m}}} 3.0' in lines
    assert f"modelport_in_flight{{{of_n}}} 1.0" in lines


def test_what_is_counted_is_there_for_the_reader_at_once_however_much_was_counted_before() -> None:
    """The memory grows under series that are bound already, and their places stay."""
    descriptor = create()
    reader, many = CounterReader(descriptor), SharedCounters(descriptor).counters(BARE_BY_NUMBER)
    for number in range(3_000):
        many[str(number),].inc(number)
        many["0",].inc()
        if number % 500 == 0:
            numbers = dict(reader.read())
            assert numbers[series_key(BARE_BY_NUMBER, ("0",))][0] == number + 1
            assert len(numbers) == number + 1

    assert [numbers[0] for _, numbers in reader.read()] == [3_000, *range(1, 3_000)]
    os.close(descriptor)


def test_a_series_is_there_from_the_moment_that_it_is_asked_for() -> None:
    """Prometheus does not see the growth of a series that begins with its first event."""
    page = RelayCounters()
    descriptor = page.open()
    metrics = Metrics(SharedCounters(descriptor))

    metrics.of("chat", "m", "b")
    metrics.attempt("b", "engine_timeout")
    lines = page.render().decode().splitlines()
    page.close(descriptor)

    assert 'modelport_attempts_total{modelport_backend="b",outcome="engine_timeout"} 0.0' in lines
    assert next(line for line in lines if line.startswith("modelport_stream_errors_total")).endswith("} 0.0")


def test_what_may_be_counted_of_a_backend_and_a_model_is_there_before_it_is() -> None:
    page = RelayCounters()
    descriptor = page.open()
    metrics = Metrics(SharedCounters(descriptor))
    targets = (Target("a", "m"), Target("b", "m"))
    models = {
        "twice": PublicModel("twice", targets, continues_streams=True),
        "once": PublicModel("once", targets[:1]),
        "else": PublicModel("else", targets[:1], fallbacks=("once",)),
    }
    rows = {name: Backend(name, "vllm", State.READY) for name in ("a", "b", "c")}

    metrics.follow(Table(1, models, {}, (), rows))
    once = page.render()
    metrics.follow(Table(2, models, {}, (), rows))
    twice = page.render()
    page.close(descriptor)

    counted = [sample for family in text_string_to_metric_families(once.decode()) for sample in family.samples]
    of_name = Counter(sample.name for sample in counted)
    assert once == twice
    assert {sample.value for sample in counted} == {0.0}
    assert {name: count for name, count in of_name.items() if "lag" not in name} == {
        "modelport_rejected_requests_total": len(ALARMING),
        "modelport_attempts_total": 3 * len(OUTCOMES),
        "modelport_placements_total": len(PLACED_BY),
        "modelport_retries_denied_total": 2,
        "modelport_continued_streams_total": len(CONTINUED_AS),
    }


def test_the_first_keys_with_limits_have_their_own_series_of_refusals() -> None:
    page = RelayCounters()
    descriptor = page.open()
    metrics = Metrics(SharedCounters(descriptor))
    limits = KeyLimits(rpm=1, budget=Budget(5.0, "money", "day"))
    keys = [Key(f"key-{number}", "", limits=limits) for number in range(MOST_KEYS + 2)]

    metrics.follow(Table(1, {}, {}, (), {}, keys=(Key("free", ""), *keys)))
    metrics.limited("key-0", "rpm").inc()
    for name in (keys[-1].name, keys[-2].name, "from the store"):
        metrics.limited(name, "tpm").inc()
    lines = [line for line in page.render().decode().splitlines() if line.startswith("modelport_limited_total{")]
    page.close(descriptor)

    assert len(lines) == 2 * MOST_KEYS + 1
    assert 'modelport_limited_total{key="key-0",limit="rpm"} 1.0' in lines
    assert 'modelport_limited_total{key="key-0",limit="budget"} 0.0' in lines
    assert f'modelport_limited_total{{key="{OTHER_KEYS}",limit="tpm"}} 3.0' in lines


def test_an_attempt_ends_with_nothing_that_is_not_known_before() -> None:
    errors = [kind for kind in vars(backend_errors).values() if isinstance(kind, type)]
    ends = {
        outcome(kind.__new__(kind))
        for kind in errors
        if issubclass(kind, backend_errors.BackendError)
        and kind not in (backend_errors.BackendError, backend_errors.NotTaken, backend_errors.Taken)
    }

    assert {"ok", *ends} == set(OUTCOMES)


def test_a_relay_carries_nothing_of_prometheus_client() -> None:
    """It is the supervisor's, which renders the page: a relay without it is smaller, and starts sooner."""
    code = "import sys; import app.relay.server; print([m for m in sys.modules if m.startswith('prometheus')])"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True)

    assert done.stdout.strip() == "[]"


def test_memory_that_is_there_only_in_part_is_not_counted_in(counters: tuple[RelayCounters, SharedCounters]) -> None:
    """The system writes as much as there is room for, and refuses the rest."""
    all_relays, relay = counters
    many = relay.counters(BARE_BY_NUMBER)
    many["0",].inc()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FIRST_BYTES + 1000, before[1]))
    try:
        for number in range(1_000):
            many[str(number),].inc()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    shared = all_relays.render().decode().count("numbered_total{")
    relay.settle()
    lines = all_relays.render().decode().splitlines()

    assert 0 < shared < 1_000
    assert sum(line.startswith("numbered_total{") for line in lines) == 1_000
    assert 'numbered_total{number="0"} 2.0' in lines
    assert 'numbered_total{number="999"} 1.0' in lines
