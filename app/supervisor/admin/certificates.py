"""The certificate of each public name, in a file that outlives the supervisor.

It holds for what was served then: where the engine, its files or the name's rules have changed since, it says nothing
of what is served now.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from app import keys
from app.certificate.certificate import Certificate, Outcome
from app.routing import resolve
from app.supervisor.admin.observer import ModelAsker
from app.supervisor.json_store import JsonStore
from app.supervisor.replicas import replicas
from app.table import Backend, Key, PublicModel, Table
from backends.config.base import BackendConfig
from backends.kinds import preflight

KEY_NAME: Final = "modelport-observer"
MOST: Final = 1000  # also of names that are gone: the oldest go first


class _File(msgspec.Struct, frozen=True):
    version: Literal[1]
    certificates: list[Certificate]


class CertificateStore:
    """The latest certificate of each name, oldest first. `path` None: kept only as long as this object lives. `url`: of
    the gateway's own listener, at which observations ask as a client does, with a key that nobody else has.

    `refresh`, `put` and the constructor block; they may be called from several threads.
    """

    def __init__(self, path: Path | None = None, url: str = "") -> None:
        self.file = JsonStore(path, _File)
        secret, self._digest = keys.new("observer")
        self.asker = ModelAsker(url, secret)
        self.configs: Mapping[str, BackendConfig] = {}
        self._lock = threading.Lock()
        content = self.file.read()
        self._known = {each.model: each for each in content.certificates} if content is not None else {}
        self._engines: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"<CertificateStore {len(self._known)} in {self.file.path}>"

    def refresh(self, backends: Mapping[str, BackendConfig]) -> None:
        """Take these as the engines from now on. Blocks: it looks at their files."""
        self.configs = replicas.expand(backends)
        self._engines = {name: _engine(config) for name, config in self.configs.items()}

    def identity(self, model: PublicModel) -> str:
        """What stands for everything that decides this name's answers: engines, files, rules. The same text, the same
        answers; no secret can be read from it.
        """
        targets = [(self._engines.get(each.backend, each.backend), each.model) for each in model.targets]
        decides = msgspec.json.encode([sorted(set(targets)), msgspec.to_builtins(model.rules), model.reasoning])
        return hashlib.sha256(decides).hexdigest()[:32]

    def put(self, name: str, certificate: Certificate) -> Certificate:
        """Keep it in place of an earlier one of the same name, and return the one that is kept: one that did not check
        the prompts does not take the place of one of the same serving that did. Blocks: it writes the file.
        """
        certificate = msgspec.structs.replace(certificate, model=name)
        with self._lock:
            known = self._known.get(name)
            if known is not None and _is_fuller(known, certificate):
                return known
            others = [each for each in self._known.values() if each.model != certificate.model]
            self._known = {each.model: each for each in [*others[-MOST + 1 :], certificate]}
            self.file.write(_File(1, list(self._known.values())))
        return certificate

    def applied(self, table: Table) -> Table:
        """The table with what is known of each of its names, and with the observer's key where keys are asked for."""
        if not table.is_open:
            table = msgspec.structs.replace(table, keys=(*table.keys, Key(KEY_NAME, self._digest, id=KEY_NAME)))
        if not self._known:
            return table
        models = {name: self._with_parity(model, table.backends) for name, model in table.models.items()}
        return msgspec.structs.replace(table, models=models)

    def outcomes(self, table: Table) -> list[tuple[str, str, Outcome]]:
        """What the certificate of each name of this table comes to now, as (name, backend, outcome)."""
        return [
            (
                name,
                model.targets[0].backend,
                known.outcome if self._is_of_now(known, model, table.backends) else Outcome.OUTDATED,
            )
            for name, model in table.models.items()
            if (known := self._known.get(model.name)) is not None
        ]

    def _is_of_now(self, known: Certificate, model: PublicModel, rows: Mapping[str, Backend]) -> bool:
        return known.identity == self.identity(model) and _is_served(known, model, rows)

    def _with_parity(self, model: PublicModel, rows: Mapping[str, Backend]) -> PublicModel:
        known = self._known.get(model.name)
        if known is None:
            return model
        is_of_now = self._is_of_now(known, model, rows)
        parity = known.summary if is_of_now else f"unverified (what is served has changed since {known.date})"
        return msgspec.structs.replace(model, parity=parity)


def public_name(table: Table, name: str) -> str:
    """The public name that a name or an alias stands for, behind a wildcard too; KeyError where there is none."""
    resolved = resolve(table, name)
    if resolved is None:
        raise KeyError(name)
    return resolved.name


def _is_fuller(known: Certificate, other: Certificate) -> bool:
    """Whether a known certificate says more of the same serving than another one does."""
    is_same = known.identity == other.identity and (
        None in (known.serving, other.serving) or known.serving == other.serving
    )
    return is_same and known.checks_prompts and not other.checks_prompts


def _is_served(known: Certificate, model: PublicModel, rows: Mapping[str, Backend]) -> bool:
    """Whether the bytes that are served are still those of the certificate, as far as both are known."""
    target = model.targets[0]
    row = rows.get(target.backend)
    serving = row.serving(target.model) if row is not None else None
    return serving is None or known.serving is None or serving.digest == known.serving


def _engine(config: BackendConfig) -> str:
    """The same for engines that answer the same, by their settings and their files' sizes and time stamps. A digest,
    because settings may hold secrets.
    """
    disk = preflight(config).on_disk()
    stamps = []
    for path in disk.weights if disk is not None else ():
        try:
            status = path.stat()
            stamps.append((str(path), status.st_size, status.st_mtime_ns))
        except OSError:
            stamps.append((str(path), 0, 0))
    managed = config.as_managed()
    settings = config.model_dump(mode="json", exclude=set(_WITHOUT_EFFECT), fallback=str) if managed else {}
    identity = msgspec.json.encode([settings, config.address() if managed is None else None, stamps])
    return hashlib.sha256(identity).hexdigest()[:32]


# Settings that change when and how fast an engine answers, never what.
_WITHOUT_EFFECT: Final = (
    *("start", "start_timeout_s", "stop_grace_s", "start_stall_s", "stall_timeout_s", "timeouts", "unload_after_s"),
    *("pinned", "replicas", "max_waiting", "max_wait_s", "max_in_flight", "slots", "threads", "memory_gb"),
)
