"""Why an engine does not serve, in the words that clients, `models`, `status` and `/health` all use: the reason, until
when it holds, and the command that helps. Pure.
"""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Sequence

from app.supervisor.capacity.schedule import Queued
from backends.endpoint import State
from backends.engine import Need
from backends.lifecycle.phases import Intent, Lifecycle, Phase

_AT_REST = (State.STOPPED, State.STOPPING)


def is_given_up(life: Lifecycle) -> bool:
    """Whether it will not serve by itself: an administrator stopped it, or it has failed too often."""
    if life.state in (State.STOPPED, State.STOPPING):
        return life.intent is Intent.HELD
    return life.is_given_up


def explained(
    name: str,
    life: Lifecycle,
    reason: str | None,
    tries_at: float | None,
    *,
    is_closing: bool = False,
    is_followed: bool = False,
) -> str | None:
    """The reason why it does not serve, with what happens next or what helps; None where there is nothing to explain.

    `tries_at`: when it is tried again, in Unix seconds; `is_closing`: the gateway ends; `is_followed`: it is stopped
    only to start with a new configuration.
    """
    if is_closing:
        return reason or (None if life.state is State.READY else "the gateway is shutting down")
    if is_followed:
        return reason or (f"it is {life.state} for its new configuration" if life.state in _AT_REST else None)
    start = f"`modelport start {shlex.quote(name)}`"
    match life.state:
        case State.STOPPED if life.intent is Intent.HELD:
            return f"it was stopped by hand: {start} starts it"
        case State.STOPPING if life.intent is Intent.HELD:
            return f"it is being stopped by hand: {start} starts it again"
        case State.FAILED if life.is_given_up:
            why = (reason or "its starts failed").rstrip(".")
            until = f"{why}; it has given up until {clock(tries_at)}, or until its"
            if life.phase is Phase.TOO_LARGE:
                return f"{until} configuration changes: `modelport plan` shows what fits"
            return f"{until} files or its configuration change: {start} tries at once"
        case State.FAILED if life.phase is Phase.RETRYABLE:
            return f"{(reason or 'its starts failed').rstrip('.')}; the next request tries again"
    return reason


def adapter_explained(backend: str, adapter: str, reason: str, tries_at: float | None) -> str:
    """The same for an adapter that its engine does not have."""
    load = f"`modelport adapters load {shlex.join((backend, adapter))} FOLDER`"
    when = f"at {clock(tries_at)}, or when" if tries_at is not None else "when"
    return f"{reason.rstrip('.')}; it is tried again {when} its folder changes: {load} at once"


def queued(place: Queued, need: Need, others: Sequence[str]) -> str:
    """What an engine waits for before it can start. `others`: the backends that it waits for."""
    if place.why == "replica":
        return "it waits until the first of its replicas serves"
    names = ", ".join(dict.fromkeys(others))
    if place.why == "starting":
        return f"it waits for its turn to start, behind {names} (`server.start_parallel`)"
    gpus = len(need.named) or need.gpus
    wanted = [f"{round(need.memory_gb, 2):g} GB of memory"] if need.memory_gb else []
    wanted += [f"{gpus} GPU{'s' if gpus > 1 else ''}"] if gpus else []
    what = f"it waits for {' and '.join(wanted) or 'room'}"
    if place.why == "leaving":
        return f"{what}, which {names} {'are' if ', ' in names else 'is'} giving back"
    return f"{what}: {names} {'have' if ', ' in names else 'has'} it until the requests there are done"


def clock(at: float | None) -> str:
    """Unix seconds as a time of day in UTC; `later` for None."""
    if at is None:
        return "later"
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%H:%M:%S UTC")
