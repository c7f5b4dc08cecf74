"""What `modelport probe` has shown of models, in a file that outlives the supervisor.

The key is what decides it: the engine (its settings and files, or its address), the model, and the engine's version.
A changed engine is another one, and has to be tested again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from app.supervisor.capacity.measurements import fingerprint
from app.supervisor.json_store import JsonStore
from app.supervisor.replicas import replicas
from app.table import Backend
from backends.config.base import BackendConfig
from backends.endpoint import CAPABILITIES, FAILED, VERIFIED, ModelFacts
from backends.kinds import preflight

MOST: Final = 500  # also of engines that are gone or newer now: the oldest go first


class ProbeResult(msgspec.Struct, frozen=True):
    """The tests of one model at one version of its engine. `capabilities`: VERIFIED or FAILED for each tested one."""

    engine: str  # its fingerprint
    backend: str  # for people who read the file
    model: str  # its name in ModelFacts: "" stands for every name
    version: str | None
    context_length: int | None = None
    capabilities: dict[str, str] = {}


class _File(msgspec.Struct, frozen=True):
    version: Literal[1]
    results: list[ProbeResult] = msgspec.field(name="proofs")


class CapabilityStore:
    """The latest results, oldest first. `path` None: kept only as long as this object lives.

    Its methods may be called from several threads.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.file = JsonStore(path, _File)
        self._lock = threading.Lock()
        content = self.file.read()
        self._results = [each for each in content.results if _is_plausible(each)] if content is not None else []
        self._engines: Mapping[str, str] = {}
        self._expected: Mapping[str, ModelFacts] = {}

    def __repr__(self) -> str:
        return f"<CapabilityStore {len(self._results)} in {self.file.path}>"

    def refresh(self, backends: Mapping[str, BackendConfig]) -> None:
        """Take these as the engines from now on. Blocks: it looks at their files."""
        configs = replicas.expand(backends)
        self._engines = {name: _engine(config) for name, config in configs.items()}
        expected = {name: preflight(config).expected_facts() for name, config in configs.items()}
        self._expected = {name: facts for name, facts in expected.items() if facts is not None}

    def engine(self, backend: str) -> str:
        """The fingerprint under which a backend's results are kept: the same for engines that answer the same."""
        return self._engines.get(backend, backend)

    def of(self, backend: str, model: str, version: str | None) -> ProbeResult | None:
        """The latest result at that version of the engine, None when there is none.

        `version` None, while the engine does not report one: the latest at any version.
        """
        engine = self.engine(backend)
        for result in reversed(self._results):
            if (result.engine, result.model) == (engine, model) and version in (None, result.version):
                return result
        return None

    def put(self, result: ProbeResult) -> None:
        """Remember this result in place of an earlier one of the same key. Blocks: it writes the file."""
        with self._lock:
            key = (result.engine, result.model, result.version)
            others = [each for each in self._results if (each.engine, each.model, each.version) != key]
            self._results = [*others[-MOST + 1 :], result]
            self.file.write(_File(1, self._results))

    def applied(self, rows: Mapping[str, Backend]) -> dict[str, Backend]:
        """The rows with their facts completed: what tests have shown, else what the engine reports, else what its
        settings and files let expect.
        """
        engines = {each.engine for each in self._results}
        completed = {name: _completed(row, self._expected.get(name)) for name, row in rows.items()}
        return {name: self._apply(row) if self.engine(name) in engines else row for name, row in completed.items()}

    def _apply(self, row: Backend) -> Backend:
        facts = dict(row.facts)
        engine = self.engine(row.name)
        for model in dict.fromkeys(each.model for each in self._results if each.engine == engine):
            result = self.of(row.name, model, row.version)
            if result is not None:
                reported = facts.get(model, ModelFacts())
                facts[model] = msgspec.structs.replace(
                    reported,
                    context_length=reported.context_length or result.context_length,
                    capabilities=reported.capabilities | result.capabilities,
                )
        return msgspec.structs.replace(row, facts=facts)


def _completed(row: Backend, facts: ModelFacts | None) -> Backend:
    """The row with what its settings and files tell about its models."""
    if facts is None:
        return row
    # A daemon's models are known once it has listed them; an entry "" would then stand for names without their tag.
    others = {} if row.profile.is_daemon and row.facts else {"": facts}
    completed = {name: _with(reported, facts) for name, reported in row.facts.items()}
    return msgspec.structs.replace(row, facts=others | completed)


def _with(reported: ModelFacts, facts: ModelFacts) -> ModelFacts:
    return msgspec.structs.replace(
        reported,
        context_length=reported.context_length or facts.context_length,
        quantization=reported.quantization or facts.quantization,
        architecture=reported.architecture or facts.architecture,
    )


def _engine(config: BackendConfig) -> str:
    """The same for engines that answer the same. A digest, because settings may hold secrets."""
    managed = config.as_managed()
    if managed is not None:
        return fingerprint(managed, has_gpus=False)
    return hashlib.sha256(json.dumps(config.address(), sort_keys=True).encode()).hexdigest()[:32]


def _is_plausible(result: ProbeResult) -> bool:
    are_known = all(
        name in CAPABILITIES and outcome in (VERIFIED, FAILED) for name, outcome in result.capabilities.items()
    )
    return are_known and (result.context_length is None or result.context_length > 0)
