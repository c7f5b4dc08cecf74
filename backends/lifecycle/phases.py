"""What an engine's life consists of: the phase that it is in, what is intended, and the record that holds both."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from backends.endpoint import State


class Phase(enum.StrEnum):
    """Where an engine is in its life; `State` is what the world is shown of it (`Lifecycle.state`).

    The last five are those of an engine that somebody else runs, which is only asked how it is.
    """

    STOPPED = "stopped"
    FETCHING = "fetching"  # the files of its model are on their way here
    QUEUED = "queued"  # it waits for room
    LOADING = "loading"  # its process is there and does not answer yet
    WARMING = "warming"  # it answers, and does a first real piece of its work
    SERVING = "serving"
    DYING = "dying"  # it served and is dead, and its process has not ended yet: it may still say why
    FAILING = "failing"  # it was sent KILL; its exit counts as a failure
    GIVING_UP = "giving up"  # the same, and another start would fail alike
    BACKING_OFF = "backing off"  # it failed and is tried again after a pause
    GIVEN_UP = "given up"  # it failed too often, or in a way that another start would meet again
    TOO_LARGE = "too large"  # this machine does not have what it needs
    RETRYABLE = "retryable"  # it was given up, and whoever wants it may try again
    DRAINING = "draining"  # its leases are waited for, before it stops or falls asleep
    FALLING_ASLEEP = "falling asleep"
    TERMINATING = "terminating"  # it was sent TERM, because it is to stop
    KILLED = "killed"  # it was sent KILL, because it is to stop
    ASLEEP = "asleep"
    KILLED_ASLEEP = "killed asleep"  # it was sent KILL, because it left probes unanswered in its sleep
    QUEUED_TO_WAKE = "queued to wake"  # it sleeps and waits for room
    WAKING = "waking"  # it is woken, and does a real piece of its work
    CONNECTING = "connecting"  # its first answer is awaited
    CHECKING = "checking"  # it answers, and does a first real piece of its work
    ATTACHED = "attached"  # it serves
    UNREACHABLE = "unreachable"
    RECHECKING = "rechecking"  # it was unreachable, answers again, and does a real piece of its work


_PHASES: Final[Mapping[State, tuple[Phase, ...]]] = {
    State.STOPPED: (Phase.STOPPED,),
    State.STARTING: (
        Phase.FETCHING,
        Phase.QUEUED,
        Phase.LOADING,
        Phase.WARMING,
        Phase.DYING,
        Phase.FAILING,
        Phase.GIVING_UP,
        Phase.BACKING_OFF,
        Phase.QUEUED_TO_WAKE,
        Phase.WAKING,
        Phase.CONNECTING,
        Phase.CHECKING,
    ),
    State.READY: (Phase.SERVING, Phase.ATTACHED),
    State.SLEEPING: (Phase.ASLEEP, Phase.KILLED_ASLEEP),
    State.STOPPING: (Phase.DRAINING, Phase.FALLING_ASLEEP, Phase.TERMINATING, Phase.KILLED),
    State.FAILED: (Phase.GIVEN_UP, Phase.TOO_LARGE, Phase.RETRYABLE, Phase.UNREACHABLE, Phase.RECHECKING),
}
STATES: Final[Mapping[Phase, State]] = MappingProxyType(
    {phase: state for state, phases in _PHASES.items() for phase in phases}
)
# A process of ours is there in all other phases; in FETCHING, and then in FAILING, it is the one that fetches.
_WITHOUT_PROCESS: Final = frozenset(
    {
        Phase.STOPPED,
        Phase.QUEUED,
        Phase.BACKING_OFF,
        Phase.GIVEN_UP,
        Phase.TOO_LARGE,
        Phase.RETRYABLE,
        Phase.CONNECTING,
        Phase.CHECKING,
        Phase.ATTACHED,
        Phase.UNREACHABLE,
        Phase.RECHECKING,
    }
)


class Intent(enum.StrEnum):
    """What is to become of an engine once it has stopped; RUN in all phases before that."""

    RUN = "run"
    REST = "rest"  # it stays stopped, or asleep, until a request wants it: then it starts, also while it still stops
    STOP = "stop"  # it stops first; only then may a request start it
    HELD = "held"  # it stays stopped until the administrator starts it
    RESTART = "restart"  # it starts again


@dataclass(frozen=True, slots=True)
class Policy:
    """How one engine is treated; times in seconds."""

    is_attached: bool = False  # somebody else runs it
    is_fetched: bool = False  # files may have to be brought here before it starts
    is_placed: bool = False  # it starts when there is room for it
    start_timeout_s: float = 600.0
    stop_grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """One engine's life so far; all times are of the clock that `step` is given, in seconds.

    `generation` counts its starts. `reason`: why it does not serve. `since`: when it came into its state, or began
    another part of a start. `due`: when the next Tick has something to do (start deadline, next try, end of a grace);
    None: never.
    """

    phase: Phase = Phase.STOPPED
    intent: Intent = Intent.REST
    generation: int = 0
    reason: str | None = None
    since: float = 0.0
    due: float | None = None
    sleep_level: int = 0  # at which it is to fall asleep once it is drained; 0: it is to stop
    ready_at: float | None = None  # when this generation began to serve
    failed_starts: int = 0  # in a row: starts that never came to serve
    failures: int = 0  # of every kind, since it last served for a minute
    missed_probes: int = 0  # in a row

    def moved(self, phase: Phase, now: float, reason: str | None = None, due: float | None = None) -> Lifecycle:
        """The same life in this phase from now on."""
        return replace(self, phase=phase, since=now, reason=reason, due=due, missed_probes=0)

    @property
    def state(self) -> State:
        """What the world is shown."""
        return STATES[self.phase]

    @property
    def has_process(self) -> bool:
        """A process of ours is there, and its exit has not been seen."""
        return self.phase not in _WITHOUT_PROCESS

    @property
    def is_queued(self) -> bool:
        """It waits for room, to start or to wake up."""
        return self.phase in (Phase.QUEUED, Phase.QUEUED_TO_WAKE)

    @property
    def is_asleep(self) -> bool:
        """It sleeps: its process has given its devices back and is sent nothing."""
        return self.phase in (Phase.ASLEEP, Phase.QUEUED_TO_WAKE, Phase.KILLED_ASLEEP)

    @property
    def is_given_up(self) -> bool:
        """It failed, and nothing but an order or a change of its files starts it before `due`."""
        return self.phase in (Phase.GIVEN_UP, Phase.TOO_LARGE)
