"""The situation of public names, told from the table and the backends. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from app.supervisor.admin.schemas import ModelAnswer, ReplacementAnswer, failure, replacement
from app.supervisor.fleet.fleet import BackendStatus
from app.table import Backend, PublicModel, Table, Target
from backends.endpoint import State

# From the state that serves best to the one that serves worst.
_ORDER = (State.READY, State.STARTING, State.SLEEPING, State.STOPPED, State.STOPPING, State.FAILED)


def models(table: Table, backends: Iterable[BackendStatus] = ()) -> tuple[ModelAnswer, ...]:
    """Every public name with its situation, in the configuration's order."""
    known = {status.name: status for status in backends}
    return tuple(_model(table, model, known) for model in table.models.values())


def _model(table: Table, model: PublicModel, known: Mapping[str, BackendStatus]) -> ModelAnswer:
    state, reason, _ = _best(table, model.targets)
    serving, engines = _serving(table, model)
    # An adapter that its engine has not got is a row of its own, and ends with its engine.
    rows = [known[name] for name in dict.fromkeys(each.backend for each in model.targets) if name in known]
    failed = [row for row in rows if row.last_failure is not None]
    last = min(failed, key=lambda row: row.last_failure.ago_s if row.last_failure else 0.0, default=None)
    return ModelAnswer(
        name=model.name,
        state=state,
        reason=reason,
        backends=tuple(dict.fromkeys(target.backend for target in model.targets)),
        context_length=_context_length(table, model.targets),
        parent=model.parent,
        aliases=tuple(alias for alias, name in table.aliases.items() if name == model.name),
        fallbacks=model.fallbacks,
        serving=serving,
        engines=engines,
        restarts=sum(row.restarts for row in rows),
        last_failure=failure(last) if last is not None else None,
        replacement=_replacement(rows),
    )


def _replacement(rows: Sequence[BackendStatus]) -> ReplacementAnswer | None:
    found = [told for row in rows if (told := replacement(row)) is not None]
    return min(found, key=lambda told: told.state != "failed", default=None)


def _serving(table: Table, model: PublicModel) -> tuple[int, int]:
    """How many of its engines serve it now, and how many there are; of an adapter also those that have it not."""
    targets = {target.backend: target for target in model.targets}
    serving = sum(_situation(table.backends.get(name), each.model)[0] is State.READY for name, each in targets.items())
    having = [row for row in table.backends.values() if model.parent is not None and model.name in row.adapters]
    return serving, max(len(targets), len(having))


def _context_length(table: Table, targets: Sequence[Target]) -> int | None:
    found = table.backends.get(targets[0].backend) if targets else None
    facts = found.fact(targets[0].model) if found is not None else None
    return facts.context_length if facts is not None else None


def overall(
    table: Table, trouble: str | None = None, backends: Iterable[BackendStatus] = ()
) -> Literal["ok", "degraded", "starting", "draining"]:
    """One word for all public names, for the state folder's trouble, and for engines that do not start as they are
    configured now.
    """
    if table.draining:
        return "draining"
    served = [_best(table, model.targets) for model in table.models.values()]
    is_stuck = any(each.replacement is not None and each.replacement.state == "failed" for each in backends)
    is_down = any(state is State.FAILED or (state in _AT_REST and not can_start) for state, _, can_start in served)
    if trouble is not None or is_stuck or is_down:
        return "degraded"
    return "starting" if any(state is State.STARTING for state, _, _ in served) else "ok"


_AT_REST = (State.SLEEPING, State.STOPPED, State.STOPPING)


def _best(table: Table, targets: Iterable[Target]) -> tuple[State, str | None, bool]:
    found = [_situation(table.backends.get(target.backend), target.model) for target in targets]
    if not found:
        return State.FAILED, "it has no backend", False
    return min(found, key=lambda situation: (_ORDER.index(situation[0]), not situation[2]))


def _situation(backend: Backend | None, model: str) -> tuple[State, str | None, bool]:
    if backend is None:
        return State.STOPPED, "its backend is not known yet", True
    if backend.state is State.READY and backend.is_strict and model not in (backend.models or (model,)):
        return State.FAILED, f"{backend.name} has no model {model!r}", False
    return backend.state, backend.reason or backend.waits_for, backend.can_start
