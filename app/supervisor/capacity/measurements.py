"""What engines were measured to take, in a file that outlives the supervisor.

Kept by what decides it, the engine's settings and the size of its files, and not by its name: a changed engine is
another one, and an engine that is as it was before is known again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from app.supervisor.storage import JsonStore
from backends.config.base import ManagedConfig
from backends.kinds import preflight
from backends.process.footprint import Footprint

log = structlog.get_logger()

MOST: Final = 500  # of other settings and of engines that are gone: the oldest go first

# What says when and for whom an engine runs, and nothing of its size.
_BESIDE: Final = frozenset(
    {
        *("start", "start_timeout_s", "stop_grace_s", "start_stall_s", "stall_timeout_s", "timeouts"),
        *("unload_after_s", "pinned", "replicas", "max_waiting", "max_wait_s", "memory_gb"),
    }
)


class _Measure(msgspec.Struct, frozen=True):
    backend: str  # for people who read the file
    footprint: Footprint


class _File(msgspec.Struct, frozen=True):
    version: Literal[1]
    measures: dict[str, _Measure]


def fingerprint(config: ManagedConfig, has_gpus: bool) -> str:
    """The same for engines that take the same. A digest: `env` may hold secrets. Blocks: it looks at files."""
    settings = config.model_dump(mode="json", exclude=set(_BESIDE), fallback=str)
    told = json.dumps([settings, preflight(config).weights_gb(), has_gpus], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:32]


class MeasurementStore:
    """All of them. `path` None: only for as long as this object lives. Its methods may be called in threads."""

    def __init__(self, path: Path | None = None) -> None:
        self.file = JsonStore(path)
        self._lock = threading.Lock()
        self._found = _read(path) if path is not None else {}

    def __repr__(self) -> str:
        return f"<Measures {len(self._found)} in {self.file.path}>"

    def get(self, fingerprint: str) -> Footprint | None:
        """What such an engine took last time; None when none has run."""
        found = self._found.get(fingerprint)
        return found.footprint if found is not None else None

    def put(self, fingerprint: str, backend: str, footprint: Footprint) -> None:
        """From now on this. Blocks: it writes the file."""
        with self._lock:
            others = [(key, each) for key, each in self._found.items() if key != fingerprint]
            self._found = dict([*others[-MOST + 1 :], (fingerprint, _Measure(backend, footprint))])
            self.file.write(msgspec.json.encode(_File(1, self._found)))


def _read(path: Path) -> dict[str, _Measure]:
    """A file that cannot be read is as none: all in it can be measured again."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File).measures
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:  # not JSON, not what we write
        log.warning("measurements not readable, so engines are measured anew", path=str(path), reason=str(exc))
        return {}
    return {key: each for key, each in found.items() if _is_sane(each.footprint)}


def _is_sane(footprint: Footprint) -> bool:
    told = (footprint.resident_gb, footprint.weights_gb, footprint.kv_gb, footprint.kv_tokens, footprint.device_gb)
    return all(size is None or 0 <= size < 1e12 for size in told)
