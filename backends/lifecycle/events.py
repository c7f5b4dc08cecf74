"""What happens to an engine, and what is done about it: the words of backends/lifecycle/machine.py.

A `Report` names the start it is about by its generation, so that news of an earlier start is known as such.
"""

from __future__ import annotations

from dataclasses import dataclass

from backends.lifecycle.phases import Intent, Lifecycle


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
    """End it: its leases have `drain_s` seconds, then it is sent TERM. `then`: what is to become of it afterwards."""

    drain_s: float
    then: Intent = Intent.STOP


@dataclass(frozen=True, slots=True)
class SleepAsked:
    """Put it to sleep once every lease is returned, until a request wants it."""

    level: int


@dataclass(frozen=True, slots=True)
class FilesChanged:
    """What it is started from has changed since its start failed."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class Report:
    """News of one start."""

    generation: int


@dataclass(frozen=True, slots=True)
class FetchProgress(Report):
    """Its files are on their way here. `progress`: how far they are, in words for a client."""

    progress: str


@dataclass(frozen=True, slots=True)
class Fetched(Report):
    """Its files are here. `is_news`: some had to be brought."""

    is_news: bool = False


@dataclass(frozen=True, slots=True)
class Probed(Report):
    """It was asked how it is, or seen. `is_dead`: it will never be up again, whatever of it still runs."""

    is_up: bool
    reason: str | None = None
    is_dead: bool = False


@dataclass(frozen=True, slots=True)
class WarmedUp(Report):
    """It did a real piece of its work."""


@dataclass(frozen=True, slots=True)
class WarmUpFailed(Report):
    """It answers, and cannot do its work. `is_final`: as of `Exited`."""

    reason: str
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Stalled(Report):
    """It lives and does nothing: a start without progress, or requests without any."""

    reason: str


@dataclass(frozen=True, slots=True)
class Drained(Report):
    """No lease on this generation is held any more, and none can be taken."""


@dataclass(frozen=True, slots=True)
class Slept(Report):
    """It sleeps."""


@dataclass(frozen=True, slots=True)
class SleepFailed(Report):
    """It could not be put to sleep."""

    reason: str


@dataclass(frozen=True, slots=True)
class Exited(Report):
    """Its process is gone, or could not be made. `jitter` is a random number in [0, 1). `is_final`: another start would
    end in the same way, until something is changed.
    """

    reason: str
    jitter: float = 1.0
    is_final: bool = False


Event = (
    Start
    | Wanted
    | Placed
    | NotPlaced
    | StopAsked
    | SleepAsked
    | FilesChanged
    | Tick
    | FetchProgress
    | Fetched
    | Probed
    | WarmedUp
    | WarmUpFailed
    | Stalled
    | Drained
    | Slept
    | SleepFailed
    | Exited
)


@dataclass(frozen=True, slots=True)
class Spawn:
    """Make the process of this generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring here the files that its next start needs, and report how that went."""

    generation: int


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Make it do a real piece of its work, and report how that went."""

    generation: int


@dataclass(frozen=True, slots=True)
class Sleep:
    """Put it to sleep, and report how that went."""

    generation: int
    level: int


@dataclass(frozen=True, slots=True)
class WakeUp:
    """Wake it, make it do a real piece of its work, and report how that went."""

    generation: int


@dataclass(frozen=True, slots=True)
class Watch:
    """Ask an engine that somebody else runs again and again how it is."""


@dataclass(frozen=True, slots=True)
class Unwatch:
    """Stop asking."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Report when no lease on this generation is held any more."""

    generation: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """Send TERM to the engine."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Send KILL to all of its processes."""


Action = Fetch | Spawn | WarmUp | Sleep | WakeUp | Watch | Unwatch | Drain | Terminate | Kill

Step = tuple[Lifecycle, list[Action]]  # what became of a life, and what is to be done now, in this order
