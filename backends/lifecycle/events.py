"""What happens to an engine, and what is done about it: the words of backends/lifecycle/machine.py.

An event names the start it is about by its generation, so that news of an earlier start is known as such.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Start:
    """The configuration or the administrator wants it to run; failures before are forgiven."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request needs it."""


@dataclass(frozen=True, slots=True)
class Placed:
    """There is room for it: it may start, or wake up."""


@dataclass(frozen=True, slots=True)
class NotPlaced:
    """There is no room for it. `is_final`: nor would there be if it were alone."""

    reason: str
    is_final: bool


@dataclass(frozen=True, slots=True)
class StopAsked:
    """End it: leases have `drain_s`, then TERM. `is_held`: until the administrator starts it again.

    `evicted`: until a request wants it again.
    """

    drain_s: float
    then_start: bool = False
    is_held: bool = False
    evicted: bool = False


@dataclass(frozen=True, slots=True)
class SleepAsked:
    """Put it to sleep once every lease is returned, until a request wants it."""

    level: int


@dataclass(frozen=True, slots=True)
class Slept:
    """It sleeps."""

    generation: int


@dataclass(frozen=True, slots=True)
class SleepFailed:
    """It could not be put to sleep."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stalled:
    """It lives and does nothing: a start that stands still, or requests that do."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Drained:
    """No lease on this generation is held any more, and none can be taken."""

    generation: int


@dataclass(frozen=True, slots=True)
class Probed:
    """It was asked how it is, or seen. `is_dead`: it will never be up again, whatever of it still runs."""

    generation: int
    is_up: bool
    reason: str | None = None
    is_dead: bool = False


@dataclass(frozen=True, slots=True)
class WarmedUp:
    """It did a real piece of its work."""

    generation: int


@dataclass(frozen=True, slots=True)
class WarmUpFailed:
    """It answers, and cannot do its work. `is_final`: as of `Exited`."""

    generation: int
    reason: str
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Exited:
    """Its process is gone, or could not be made. `jitter` is a random number in [0, 1). `is_final`: another start would
    end in the same way, until something is changed.
    """

    generation: int
    reason: str
    jitter: float = 1.0
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Mended:
    """What it is started from has changed since its start failed."""


@dataclass(frozen=True, slots=True)
class Fetching:
    """What it needs is on its way here."""

    generation: int
    told: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """What it needs is here. `is_news`: something had to be brought."""

    generation: int
    is_news: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event = (
    Start
    | Wanted
    | Placed
    | NotPlaced
    | StopAsked
    | SleepAsked
    | Slept
    | SleepFailed
    | Stalled
    | Drained
    | Probed
    | WarmedUp
    | WarmUpFailed
    | Exited
    | Mended
    | Fetching
    | Fetched
    | Tick
)


@dataclass(frozen=True, slots=True)
class Spawn:
    """Make the process of this generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring here what it needs for its next start, and say how that went."""

    generation: int


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Make it do a real piece of its work, and say how that went."""

    generation: int


@dataclass(frozen=True, slots=True)
class Sleep:
    """Put it to sleep, and say how that went."""

    generation: int
    level: int


@dataclass(frozen=True, slots=True)
class WakeUp:
    """Wake it, make it do a real piece of its work, and say how that went."""

    generation: int


@dataclass(frozen=True, slots=True)
class Watch:
    """Ask an attached engine again and again how it is."""


@dataclass(frozen=True, slots=True)
class Unwatch:
    """Stop asking."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Say when no lease on this generation is held any more."""

    generation: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """TERM to the engine."""


@dataclass(frozen=True, slots=True)
class Kill:
    """KILL to all of it."""


Action = Fetch | Spawn | WarmUp | Sleep | WakeUp | Watch | Unwatch | Drain | Terminate | Kill
