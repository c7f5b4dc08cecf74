"""The gateway at one moment, as values: the supervisor's event loop makes it, and a thread makes the page of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.certificate.certificate import Outcome
from app.routing import resolve
from app.supervisor.capacity.gpu_quarantine import Quarantine
from app.supervisor.fleet.status import BackendStatus
from app.supervisor.metrics.backend_series import BackendCounts
from app.supervisor.metrics.model_series import PairMember
from app.supervisor.metrics.team_series import TeamCounts
from app.table import Table


@dataclass(frozen=True, slots=True)
class GatewaySnapshot:
    """`quarantines`: every GPU, and whether it is in quarantine; `trouble`: why the state folder cannot be written.
    `outcomes`: what the certificates come to, as (public name, backend, outcome); `members`: of all pairs; `pids`: our
    processes by their names; `team`: keys, usage and the store.
    """

    backends: Sequence[BackendCounts] = ()
    quarantines: Mapping[str, bool] = field(default_factory=dict)
    trouble: str | None = None
    outcomes: Sequence[tuple[str, str, Outcome]] = ()
    members: Sequence[PairMember] = ()
    pids: Mapping[str, int] = field(default_factory=dict)
    team: TeamCounts = field(default_factory=TeamCounts)


def backend_counts(statuses: Sequence[BackendStatus]) -> list[BackendCounts]:
    """The numbers of each backend, as the fleet says them."""
    return [
        BackendCounts(
            each.name,
            each.state,
            each.restarts,
            each.swaps,
            each.waiting,
            each.adapters,
            each.waiting_limit,
            each.starts,
            each.refused,
            each.waits,
            bool(each.ejected),
            each.ejections,
        )
        for each in statuses
    ]


def quarantines(devices: Sequence[str], quarantined: Sequence[Quarantine]) -> dict[str, bool]:
    """Every GPU that engines may have, and every other one in quarantine: whether it is."""
    out = {each.device for each in quarantined}
    return {device: device in out for device in (*devices, *sorted(out - {*devices}))}


def pair_members(pairs: Mapping[str, Mapping[str, str]], table: Table) -> list[PairMember]:
    """The models of all pairs, by the names that requests to them are counted under."""
    members = []
    for pair, names in pairs.items():
        for place, name in enumerate(names.values()):
            resolved = resolve(table, name, or_default=False)
            label = resolved.label if resolved is not None else name
            members.append(PairMember(pair, "tuned" if place else "base", label))
    return list(dict.fromkeys(members))
