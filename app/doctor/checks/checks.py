"""All checks, in the order in which they are told. Each name is a heading in docs/doctor.md (a test holds it). Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.doctor.checks import of_engines, of_settings, of_storage, of_store, of_system
from app.doctor.diagnosis import Diagnosis, Says
from app.doctor.facts import MachineFacts

CHECKS: Final[dict[str, Callable[[MachineFacts], Says]]] = {
    "python": of_system.python,
    "processor": of_system.processor,
    "libraries": of_system.libraries,
    "clock": of_system.clock,
    "container": of_system.container,
    "open-files": of_system.open_files,
    "shared-memory": of_system.shared_memory,
    "config": of_settings.config,
    "keys": of_settings.keys,
    "environment": of_settings.environment,
    "proxy": of_settings.proxy,
    "port": of_settings.port,
    "traces": of_settings.traces,
    "state-folder": of_storage.state_folder,
    "disk": of_storage.disk,
    "store": of_store.store,
    "usage": of_store.usage,
    "tools": of_storage.tools,
    "gpu": of_engines.gpu,
    "programs": of_engines.programs,
    "attached": of_engines.attached,
    "hub": of_engines.hub,
    "memory": of_engines.memory,
    "gateway": of_settings.gateway,
}


# These have several things to look at, so one that hangs leaves the others.
_OF_SEVERAL: Final = ("disk", "programs")


def examine(facts: MachineFacts) -> list[Diagnosis]:
    """What every check says, in order; of what could not be looked at, that."""
    diagnoses = []
    for name, check in CHECKS.items():
        late = [what for whose, what in facts.late if whose == name]
        for what in late:
            text = f"{what} could not be looked at in time"
            diagnoses.append(Diagnosis(name, "warn", text, "Look whether its disk or the network hangs."))
        if not late or name in _OF_SEVERAL:
            diagnoses += [Diagnosis(name, *said) for said in check(facts)]
    return diagnoses
