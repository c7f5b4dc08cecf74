"""What tests have shown of engines' models, in a file that outlives the supervisor.

Kept by what decides it (the engine's settings and files, or where it is), by the model and by the engine's version: a
changed engine is another one, and has to be tested anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from app.supervisor.capacity.measurements import fingerprint
from app.supervisor.replicas import replicas
from app.supervisor.storage import JsonStore
from app.table import Backend
from backends.config.base import BackendConfig
from backends.endpoint import CAPABILITIES, FAILED, VERIFIED, ModelFacts
from backends.kinds import preflight
from backends.ollama.config import OllamaConfig
from backends.remote.config import RemoteConfig

log = structlog.get_logger()

MOST: Final = 500  # of engines that are gone or newer now: the oldest go first


class CapabilityProof(msgspec.Struct, frozen=True):
    """Of one model at one version of its engine. `capabilities`: VERIFIED or FAILED, of those that were tested."""

    engine: str  # its fingerprint
    backend: str  # for people who read the file
    model: str  # as ModelFacts have it: "" is every name
    version: str | None
    context_length: int | None = None
    capabilities: dict[str, str] = {}


class _File(msgspec.Struct, frozen=True):
    version: Literal[1]
    proofs: list[CapabilityProof]


class CapabilityStore:
    """All of them. `path` None: only for as long as this object lives. Its methods may be called in threads."""

    def __init__(self, path: Path | None = None) -> None:
        self.file = JsonStore(path)
        self._lock = threading.Lock()
        self._found = _read(path) if path is not None else []
        self._engines: Mapping[str, str] = {}
        self._expected: Mapping[str, ModelFacts] = {}

    def __repr__(self) -> str:
        return f"<Proofs {len(self._found)} in {self.file.path}>"

    def look(self, backends: Mapping[str, BackendConfig]) -> None:
        """These are the engines from now on. Blocks: it looks at files."""
        configs = replicas.expand(backends)
        self._engines = {name: _engine(config) for name, config in configs.items()}
        expected = {name: preflight(config).expected_facts() for name, config in configs.items()}
        self._expected = {name: facts for name, facts in expected.items() if facts is not None}

    def engine(self, backend: str) -> str:
        """What it is remembered by."""
        return self._engines.get(backend, backend)

    def of(self, backend: str, model: str, version: str | None) -> CapabilityProof | None:
        """The latest at that version of the engine; None for none. `version` None: at any, while it does not say."""
        engine = self.engine(backend)
        for proof in reversed(self._found):
            if (proof.engine, proof.model) == (engine, model) and version in (None, proof.version):
                return proof
        return None

    def put(self, proof: CapabilityProof) -> None:
        """From now on this. Blocks: it writes the file."""
        with self._lock:
            key = (proof.engine, proof.model, proof.version)
            others = [each for each in self._found if (each.engine, each.model, each.version) != key]
            self._found = [*others[-MOST + 1 :], proof]
            self.file.write(msgspec.json.encode(_File(1, self._found)))

    def applied(self, rows: Mapping[str, Backend]) -> dict[str, Backend]:
        """The rows with what was shown over what is only said, and what is expected where nothing is said yet."""
        engines = {each.engine for each in self._found}
        full = {name: _completed(row, self._expected.get(name)) for name, row in rows.items()}
        return {name: self._apply(row) if self.engine(name) in engines else row for name, row in full.items()}

    def _apply(self, row: Backend) -> Backend:
        facts = dict(row.facts)
        engine = self.engine(row.name)
        for model in dict.fromkeys(each.model for each in self._found if each.engine == engine):
            proof = self.of(row.name, model, row.version)
            if proof is not None:
                known = facts.get(model, ModelFacts())
                facts[model] = msgspec.structs.replace(
                    known,
                    context_length=known.context_length or proof.context_length,
                    capabilities=known.capabilities | proof.capabilities,
                )
        return msgspec.structs.replace(row, facts=facts)


def _completed(row: Backend, facts: ModelFacts | None) -> Backend:
    """With what its settings and files tell of its models."""
    if facts is None:
        return row
    # Of a daemon's models only those are known that it has told of; "" would hide names without their tag.
    others = {} if row.kind == "ollama" and row.facts else {"": facts}
    return msgspec.structs.replace(row, facts=others | {name: _with(said, facts) for name, said in row.facts.items()})


def _with(said: ModelFacts, facts: ModelFacts) -> ModelFacts:
    return msgspec.structs.replace(
        said,
        context_length=said.context_length or facts.context_length,
        quantization=said.quantization or facts.quantization,
        architecture=said.architecture or facts.architecture,
    )


def _engine(config: BackendConfig) -> str:
    """The same for engines that answer the same. A digest: settings may hold secrets."""
    managed = config.as_managed()
    if managed is not None:
        return fingerprint(managed, has_gpus=False)
    where: dict[str, object] = {}
    if isinstance(config, OllamaConfig):
        where = {"url": config.url}
    elif isinstance(config, RemoteConfig):
        where = {"url": config.base_url, "addresses": config.addresses}
    return hashlib.sha256(json.dumps(where, sort_keys=True).encode()).hexdigest()[:32]


def _read(path: Path) -> list[CapabilityProof]:
    """A file that cannot be read is as none: all in it can be tested again."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File).proofs
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as exc:  # not JSON, not what we write
        log.warning("tests of models not readable", path=os.fspath(path), reason=str(exc))
        return []
    return [each for each in found if _is_sane(each)]


def _is_sane(proof: CapabilityProof) -> bool:
    is_known = all(name in CAPABILITIES and told in (VERIFIED, FAILED) for name, told in proof.capabilities.items())
    return is_known and (proof.context_length is None or proof.context_length > 0)
