"""What became of one relay's latest requests to one target, and what that says beside its siblings. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

# Outcomes (app/errors.py) that are the engine's own failures. Not among them: what it refuses because of the request,
# that it is full, and clients that leave.
FAILURES: Final = frozenset(
    {"engine_unreachable", "engine_disconnected", "engine_timeout", "engine_broken_answer", "engine_failed"}
)
NOT_READY: Final = "engine_not_ready"  # a failure where the engine itself said it, of a request that it was sent

SHARE: Final = 0.5  # of the latest requests that failed
SHARE_OF: Final = 20  # requests at least
SHARE_S: Final = 60.0  # not older than this
SAMPLES: Final = 5  # times at least, before anything is compared
SAMPLES_S: Final = 120.0
SLOW_FACTOR: Final = 4.0
SLOW_S: Final = 1.0  # more than its siblings, at least
SILENT_FACTOR: Final = 10.0
SILENT_S: Final = 5.0  # at least, where siblings answer
UNKNOWN_SILENT_S: Final = 30.0  # where nothing is known of how long siblings take

# What is comparable: the operation, and whether the response is a stream (then its first token counts, else its end).
RequestKind = tuple[str, bool]


class Pending(Protocol):
    """A request that was sent and may have no response yet."""

    @property
    def has_begun(self) -> bool:
        """Whether a part of the response has come."""
        ...


class Outlier(NamedTuple):
    """Why a target is worse than its siblings. `reason`: `failures`, `share`, `silent` or `slow`; `evidence` goes on
    after "it is passed over: "."""

    reason: str
    evidence: str


class TargetHealth:
    """One target at one relay; times are those of one monotonic clock, in seconds. `target`: the backend, and its own
    name for the model.

    `operation`: of the latest request. `since`: what was sent before says nothing any more. `is_out`: it is ejected, so
    nothing is learned of it. `quiet_until`: nothing more is told of it until then.
    """

    __slots__ = (
        "_latest",
        "_outcomes",
        "_seconds",
        "_waiting",
        "failed_in_row",
        "generation",
        "is_out",
        "operation",
        "quiet_until",
        "since",
        "target",
    )

    def __init__(self, target: tuple[str, str], generation: int, now: float) -> None:
        self.target = target
        self.operation = ""
        self.generation = generation
        self.failed_in_row = 0
        self.is_out = False
        self.since = now
        self.quiet_until = now
        self._latest = ""
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=2 * SHARE_OF)
        self._seconds: dict[RequestKind, deque[tuple[float, float]]] = {}
        self._waiting: dict[Pending, tuple[float, RequestKind]] = {}

    def __repr__(self) -> str:
        return f"<TargetHealth {self.target[0]}#{self.generation} failed_in_row={self.failed_in_row}>"

    def begin(self, now: float, failed_in_row: int = 0) -> None:
        """Forget what was: it is another start, or it was ejected and is back."""
        self.since = self.quiet_until = now
        self.failed_in_row = failed_in_row
        self._outcomes.clear()
        self._seconds.clear()

    @property
    def is_waited_for(self) -> bool:
        """Whether it has a request that has not ended."""
        return bool(self._waiting)

    def sent(self, request: Pending, kind: RequestKind, now: float) -> None:
        """It is sent this request, now."""
        self.operation = kind[0]
        self._waiting[request] = (now, kind)

    def left(self, request: Pending) -> None:
        """Nothing is to be learned of this request any more."""
        self._waiting.pop(request, None)

    def ended(self, request: Pending, outcome: str, first_token_at: float | None, now: float) -> bool:
        """The attempt ended: `ok` or the failure's outcome. Returns whether the engine has failed."""
        sent = self._waiting.pop(request, None)
        if self.is_out or (sent is not None and sent[0] < self.since):
            return False
        if outcome == "ok":
            self.failed_in_row = 0
            self._outcomes.append((now, False))
            if sent is not None:
                at, kind = sent
                times = self._seconds.get(kind)
                if times is None:
                    times = self._seconds[kind] = deque(maxlen=2 * SAMPLES - 1)
                times.append((now, (first_token_at if first_token_at is not None else now) - at))
            return False
        if outcome not in FAILURES and not (outcome == NOT_READY and sent is not None):
            return False
        self.failed_in_row += 1
        self._latest = outcome
        self._outcomes.append((now, True))
        return True

    # -- what that says

    def failing(self, most_in_row: int, now: float) -> Outlier | None:
        """Whether it fails: so many requests in a row, or half of many."""
        if self.failed_in_row >= most_in_row:
            many = "request" if self.failed_in_row == 1 else f"{self.failed_in_row} requests in a row"
            return Outlier("failures", f"{many} failed ({self._latest})")
        recent = [failed for at, failed in self._outcomes if now - at < SHARE_S]
        if len(recent) >= SHARE_OF and sum(recent) >= SHARE * len(recent):
            return Outlier("share", f"{sum(recent)} of {len(recent)} requests failed (the latest: {self._latest})")
        return None

    def typical_s(self, kind: RequestKind, now: float) -> float | None:
        """The median of its latest times; None where there are too few."""
        times = sorted(seconds for at, seconds in self._seconds.get(kind, ()) if now - at < SAMPLES_S)
        return times[len(times) // 2] if len(times) >= SAMPLES else None

    def slow(self, siblings: Sequence[TargetHealth], now: float) -> Outlier | None:
        """Whether it takes much longer than its siblings for the same kind of request."""
        for kind in self._seconds:
            own, others = self.typical_s(kind, now), _median(each.typical_s(kind, now) for each in siblings)
            if own is None or others is None:
                continue
            if own >= SLOW_FACTOR * others and own - others >= SLOW_S:
                what = "first token" if kind[1] else "response"
                return Outlier("slow", f"its {what} takes {own:.1f} s, that of the others {others:.2f} s")
        return None

    def silent(self, siblings: Sequence[TargetHealth], now: float) -> Outlier | None:
        """Whether a request has waited for it much longer than requests to its siblings do."""
        for request, (at, kind) in self._waiting.items():
            if request.has_begun or at < self.since:
                continue
            others = _median(each.typical_s(kind, now) for each in siblings)
            patience_s = UNKNOWN_SILENT_S if others is None else max(SILENT_S, SILENT_FACTOR * others)
            if now - at >= patience_s:
                usual = f", that of the others takes {others:.2f} s" if others is not None else ""
                return Outlier("silent", f"a request has waited {now - at:.0f} s for its response{usual}")
        return None


def _median(values: Iterable[float | None]) -> float | None:
    known = sorted(each for each in values if each is not None)
    return known[len(known) // 2] if known else None
