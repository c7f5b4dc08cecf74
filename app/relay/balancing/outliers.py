"""The targets of one relay that do worse than their siblings: looked for in passing, and told to the supervisor, which
decides (app/supervisor/ejection)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from app.ipc import Suspicion
from app.relay.balancing.retry_budget import RetryBudget
from app.relay.balancing.target_health import Outlier, Pending, TargetHealth
from app.shared_counters import Counter
from app.table import Backend, Table, Target
from backends.endpoint import State

LOOK_EVERY_S: Final = 1.0
# How long nothing more is told of a target: what only may be so is tried out, which costs engines a request.
QUIET_S: Final = {"failures": 1.0, "share": 1.0, "silent": 20.0, "slow": 20.0}

TargetKey = tuple[str, str]  # a backend, and its own name for a model


class Siblings:
    """What requests of one public model need that may go to several targets: the health of those, and how often such a
    request may be tried again."""

    __slots__ = ("_denied", "_outliers", "budget")

    def __init__(self, outliers: Outliers, budget: RetryBudget, denied: Counter) -> None:
        self._outliers = outliers
        self._denied = denied
        self.budget = budget

    def health(self, target: Target) -> TargetHealth:
        """Of one of them."""
        return self._outliers.health(target)

    def sent(self, health: TargetHealth, request: Pending, operation: str, *, is_stream: bool) -> None:
        """The request is sent to the target of that health, now."""
        health.sent(request, (operation, is_stream), time.perf_counter())
        self._outliers.watch()

    def ended(self, health: TargetHealth, request: Pending, outcome: str, first_token_at: float | None) -> None:
        """The attempt there ended: `ok` or the failure's outcome. `first_token_at`: of a stream, by
        time.perf_counter()."""
        if health.ended(request, outcome, first_token_at, time.perf_counter()):
            self._outliers.judge(health)

    def may_retry(self) -> bool:
        """Whether a request of this model may go to one more target; counts it where not."""
        if self.budget.allows(time.perf_counter()):
            return True
        self._denied.inc()
        return False


class Outliers:
    """Looks at what became of requests to models of several targets. `tell`: how the supervisor hears of one that does
    worse than the others. Nothing is told of a target that has no sibling which serves and is well. `denied`: the
    counter of a public model's requests that may not be tried again.
    """

    def __init__(
        self, table: Callable[[], Table], tell: Callable[[Suspicion], None], denied: Callable[[str], Counter]
    ) -> None:
        self._table = table
        self._tell = tell
        self._denied = denied
        self._siblings: Mapping[TargetKey, frozenset[TargetKey]] = {}
        self._health: dict[TargetKey, TargetHealth] = {}
        self._of_models: dict[str, Siblings] = {}
        self._next_look: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Outliers targets={len(self._health)}>"

    def siblings(self, model: str) -> Siblings:
        """Of the public model of that name in the configuration."""
        known = self._of_models.get(model)
        if known is None:
            budget = RetryBudget(self._table().limits.retry_budget, time.perf_counter())
            known = self._of_models[model] = Siblings(self, budget, self._denied(model))
        return known

    def follow(self, table: Table) -> None:
        """Another table: who has started anew, and who is back, begins anew; who is back is on probation."""
        now = time.perf_counter()
        sets: dict[TargetKey, set[TargetKey]] = {}
        for model in table.models.values():
            keys = {(target.backend, target.model) for target in model.targets}
            if len(keys) > 1:
                for key in keys:
                    sets.setdefault(key, set()).update(keys - {key})
        self._siblings = {key: frozenset(others) for key, others in sets.items()}
        self._of_models = {name: known for name, known in self._of_models.items() if name in table.models}
        for known in self._of_models.values():
            known.budget.share = table.limits.retry_budget
        self._health = {key: health for key, health in self._health.items() if key[0] in table.backends}
        for (backend, name), health in self._health.items():
            row = table.backends[backend]
            was_out, health.is_out = health.is_out, name in row.ejected
            generation = _generation(row)
            if generation not in (0, health.generation):
                health.generation = generation
                health.begin(now)
            elif was_out and not health.is_out:
                health.begin(now, failed_in_row=max(0, table.limits.eject_after - 1))

    def health(self, target: Target) -> TargetHealth:
        """What is known of this target."""
        key = (target.backend, target.model)
        health = self._health.get(key)
        if health is None:
            row = self._table().backends.get(target.backend)
            health = self._health[key] = TargetHealth(key, _generation(row), time.perf_counter())
            health.is_out = row is not None and target.model in row.ejected
        return health

    def judge(self, health: TargetHealth) -> None:
        """One more request failed there: tell of it where that is enough."""
        most, now = self._table().limits.eject_after, time.perf_counter()
        if most and now >= health.quiet_until:
            finding = health.failing(most, now)
            if finding is not None:
                self._report(health, finding, now)

    def watch(self) -> None:
        """Look soon at those that are asked and do not respond."""
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        """Who is silent, who is slow? Again and again while requests wait for one of them."""
        self._next_look = None
        now = time.perf_counter()
        is_watched = False
        for health in self._health.values():
            is_watched = is_watched or health.is_waited_for
            if health.is_out or now < health.quiet_until or not self._table().limits.eject_after:
                continue
            others = [self._health[key] for key in self._siblings.get(health.target, ()) if key in self._health]
            finding = health.silent(others, now) or health.slow(others, now) if others else None
            if finding is not None:
                self._report(health, finding, now)
        if is_watched:
            self.watch()

    def _report(self, health: TargetHealth, finding: Outlier, now: float) -> None:
        siblings = tuple(self._well(health))
        if not siblings:
            return
        health.quiet_until = now + QUIET_S[finding.reason]
        backend, model = health.target
        self._tell(
            Suspicion(
                backend=backend,
                model=model,
                generation=health.generation,
                reason=finding.reason,
                evidence=finding.evidence,
                operation=health.operation,
                siblings=siblings,
            )
        )

    def _well(self, health: TargetHealth) -> Iterator[TargetKey]:
        """Its siblings that serve, whose latest request did not fail. Where all fail, the cause is elsewhere."""
        backends = self._table().backends
        for key in self._siblings.get(health.target, ()):
            row, other = backends.get(key[0]), self._health.get(key)
            if row is None or row.state is not State.READY or row.endpoint is None or key[1] in row.ejected:
                continue
            if other is None or other.failed_in_row == 0:
                yield key


def _generation(row: Backend | None) -> int:
    """Of its present start; 0 where it does not serve."""
    return row.endpoint.generation if row is not None and row.endpoint is not None else 0
