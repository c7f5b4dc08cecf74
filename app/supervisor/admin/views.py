"""What is shown of public names, the gateway and logs, made of the table and the fleet's reports. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Literal

from app.config.model import Config
from app.errors import Problem
from app.supervisor.admin.schemas import (
    LifeAnswer,
    Logs,
    Models,
    PublicModelAnswer,
    ReplacementAnswer,
    ServingAnswer,
    failure,
    replacement,
)
from app.supervisor.fleet.past_lives import Log
from app.supervisor.fleet.status import BackendStatus
from app.table import Backend, PublicModel, Table, Target
from backends.endpoint import State
from backends.ollama.names import full_name

# From the best state to the worst.
_ORDER = (State.READY, State.STARTING, State.SLEEPING, State.STOPPED, State.STOPPING, State.FAILED)


# What may differ between gateways that serve the same.
_OF_THE_MACHINE: Final[Mapping[str, bool | set[str]]] = {
    "server": {"host", "port", "relays", "metrics_host", "metrics_port", "memory_gb"},
    "tracing": True,
}


class ConfigDigest:
    """16 hex digits for the configuration in force: two that show the same serve the same to the same clients.
    Nothing secret is in them, nor what belongs to one machine.
    """

    def __init__(self) -> None:
        self._of: Config | None = None
        self._digest = ""

    def of(self, config: Config) -> str:
        """The digest; computed once as long as it is the same object."""
        if config is not self._of:
            text = config.model_dump_json(exclude=dict(_OF_THE_MACHINE))
            self._of, self._digest = config, hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._digest


def models(table: Table, backends: Iterable[BackendStatus] = ()) -> tuple[PublicModelAnswer, ...]:
    """Every public name with its state, reason and engines, in the order of the configuration."""
    known = {status.name: status for status in backends}
    return tuple(_model(table, model, known) for model in table.models.values())


def listed(table: Table, backends: Iterable[BackendStatus], hidden: Collection[str] = ()) -> Models:
    """The public names, the wildcards but for those of `hidden` backends, and the pairs to compare."""
    return Models(
        models=models(table, backends),
        wildcards=tuple(f"{wildcard.prefix}*" for wildcard in table.wildcards if wildcard.backend not in hidden),
        pairs=table.pairs,
    )


def _model(table: Table, model: PublicModel, known: Mapping[str, BackendStatus]) -> PublicModelAnswer:
    state, reason, _ = _best(table, model.targets)
    serving, engines = _serving(table, model)
    # An adapter has the restarts and failures of its engines.
    statuses = [known[name] for name in dict.fromkeys(each.backend for each in model.targets) if name in known]
    failed = [status for status in statuses if status.last_failure is not None]
    last = min(failed, key=lambda status: status.last_failure.ago_s if status.last_failure else 0.0, default=None)
    return PublicModelAnswer(
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
        servings=_servings(table, model.targets),
        restarts=sum(status.restarts for status in statuses),
        last_failure=failure(last) if last is not None else None,
        replacement=_replacement(statuses),
        parity=model.parity,
    )


def resident_gb(backends: Iterable[BackendStatus]) -> dict[str, float]:
    """The host memory that each running engine takes, in GB; 0 where that has not been measured."""
    return {
        status.name: status.footprint.resident_gb or 0.0 if status.footprint is not None else 0.0
        for status in backends
        if status.pid is not None
    }


def _replacement(statuses: Sequence[BackendStatus]) -> ReplacementAnswer | None:
    replacements = [each for status in statuses if (each := replacement(status)) is not None]
    return min(replacements, key=lambda each: each.state != "failed", default=None)


def _serving(table: Table, model: PublicModel) -> tuple[int, int]:
    """How many of its engines serve it now, and how many there are. Of an adapter, those without it count as well."""
    targets = {target.backend: target for target in model.targets}
    serving = sum(_state_of(table.backends.get(name), each.model)[0] is State.READY for name, each in targets.items())
    having = [row for row in table.backends.values() if model.parent is not None and model.name in row.adapters]
    return serving, max(len(targets), len(having))


def _servings(table: Table, targets: Sequence[Target]) -> tuple[ServingAnswer, ...]:
    rows = {target.backend: (table.backends.get(target.backend), target.model) for target in targets}
    known = [(row, serving) for row, model in rows.values() if row is not None and (serving := row.serving(model))]
    return tuple(
        ServingAnswer(
            backend=row.name,
            digest=serving.digest,
            is_unverified=serving.digest is None,
            weights=serving.weights,
            template=serving.template,
            adapter=serving.adapter,
            version=row.version,
        )
        for row, serving in known
    )


def _context_length(table: Table, targets: Sequence[Target]) -> int | None:
    backend = table.backends.get(targets[0].backend) if targets else None
    facts = backend.fact(targets[0].model) if backend is not None else None
    return facts.context_length if facts is not None else None


def overall(
    table: Table, trouble: str | None = None, backends: Iterable[BackendStatus] = ()
) -> Literal["ok", "degraded", "starting", "draining"]:
    """The gateway's state in one word, made of all public names, of the state folder's trouble, and of engines that do
    not start with their new configuration.
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
    """As `_state_of`, of the target that serves best."""
    states = [_state_of(table.backends.get(target.backend), target.model) for target in targets]
    if not states:
        return State.FAILED, "it has no backend", False
    return min(states, key=lambda each: (_ORDER.index(each[0]), not each[2]))


def _state_of(backend: Backend | None, model: str) -> tuple[State, str | None, bool]:
    """The state of a model at one backend, the reason, and whether it can be started."""
    if backend is None:
        return State.STOPPED, "its backend is not known yet", True
    listed = map(full_name, backend.models or (model,))
    if backend.state is State.READY and backend.is_strict and full_name(model) not in listed:
        return State.FAILED, f"{backend.name} has no model {model!r}", False
    return backend.state, backend.reason or backend.waits_for, backend.can_start


def logs(backend: str, lines: int, life: int | None, log: Log | None, now: float) -> Logs:
    """The last `lines` lines of a life's log; Problem (404) when that life is not known, so that `log` is None.

    `now`: the clock that lives end by, in seconds.
    """
    if log is None:
        message = (
            f"{backend!r} has no start number {life} whose lines are still known. Leave the number out for the latest "
            "start's; the earlier ones that are known are listed below them."
        )
        raise Problem(404, "life_not_found", message, param="life")
    return Logs(
        backend=backend,
        life=log.life.number if log.life is not None else None,
        lines=tuple(log.lines[-lines:]),
        printed=log.printed.whole,
        unfinished=log.printed.has_more,
        lives=tuple(
            LifeAnswer(
                life=each.number,
                reason=each.reason,
                ended_ago_s=round(now - each.ended_at, 3) if each.ended_at is not None else None,
            )
            for each in log.lives
        ),
    )
