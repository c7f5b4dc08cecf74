"""How much memory engines were measured to take, in a file that outlives the supervisor.

The key is a fingerprint of what decides it, the engine's settings and the size of its files, and not its name: a
changed engine is another one, and an engine that is as it was before is known again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Final, Literal

import msgspec

from app.supervisor.json_store import JsonStore
from backends.config.base import ManagedConfig
from backends.kinds import preflight
from backends.process.footprint import Footprint

MOST: Final = 500  # also of earlier settings and of engines that are gone: the oldest go first

# Settings that say when and for whom an engine runs, and nothing about its size.
_WITHOUT_EFFECT: Final = frozenset(
    {
        *("start", "start_timeout_s", "stop_grace_s", "start_stall_s", "stall_timeout_s", "timeouts"),
        *("unload_after_s", "pinned", "replicas", "max_waiting", "max_wait_s", "memory_gb"),
    }
)


class _Measurement(msgspec.Struct, frozen=True):
    backend: str  # for people who read the file
    footprint: Footprint


class _File(msgspec.Struct, frozen=True):
    version: Literal[1]
    measurements: dict[str, _Measurement] = msgspec.field(name="measures")


def fingerprint(config: ManagedConfig, has_gpus: bool) -> str:
    """32 hex digits, the same for engines that take the same memory. Blocks: it looks at files.

    A digest, because `env` may hold secrets.
    """
    settings = config.model_dump(mode="json", exclude=set(_WITHOUT_EFFECT), fallback=str)
    identity = json.dumps([settings, preflight(config).weights_gb(), has_gpus], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


class MeasurementStore:
    """The footprint of every engine that was measured. `path` None: kept only as long as this object lives.

    Its methods may be called from several threads.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.file = JsonStore(path, _File)
        self._lock = threading.Lock()
        content = self.file.read()
        measurements = content.measurements if content is not None else {}
        self._measurements = {key: each for key, each in measurements.items() if _is_plausible(each.footprint)}

    def __repr__(self) -> str:
        return f"<MeasurementStore {len(self._measurements)} in {self.file.path}>"

    def get(self, fingerprint: str) -> Footprint | None:
        """What such an engine took last time; None when none has run."""
        measurement = self._measurements.get(fingerprint)
        return measurement.footprint if measurement is not None else None

    def put(self, fingerprint: str, backend: str, footprint: Footprint) -> None:
        """Remember what such an engine took now. Blocks: it writes the file."""
        with self._lock:
            others = [(key, each) for key, each in self._measurements.items() if key != fingerprint]
            self._measurements = dict([*others[-MOST + 1 :], (fingerprint, _Measurement(backend, footprint))])
            self.file.write(_File(1, self._measurements))


def _is_plausible(footprint: Footprint) -> bool:
    sizes = (footprint.resident_gb, footprint.weights_gb, footprint.kv_gb, footprint.kv_tokens, footprint.device_gb)
    return all(size is None or 0 <= size < 1e12 for size in sizes)
