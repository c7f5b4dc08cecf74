"""Of the engines: programs with their versions, those that somebody else runs, models of the hub. Nothing starts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

from app.config.model import Config
from app.doctor.facts import AttachedFacts, HubFacts, ProgramFacts
from backends import kinds
from backends.config.base import BackendConfig
from backends.errors import BackendError
from backends.huggingface import cache, fetcher
from backends.inspection import Inspection

ANSWER_S: Final = 5.0  # for an engine that somebody else runs, all its questions together
VERSION_S: Final = 25.0  # for a program to print its version: vLLM imports PyTorch first
_VERSION: Final = re.compile(r"\d+\.\d+[\w.+-]*")
_LINES: Final = 5  # of what a program prints, to find its version in
_SHOWN: Final = 200
_SILENT: Final = "it printed no version"
_ON: Final = frozenset({"1", "true", "yes", "on"})


def inspections(config: Config | None) -> list[tuple[str | None, Inspection]]:
    """What there is to look at: of each backend that is configured, by its name, and of each kind that none is of."""
    backends = config.backends if config is not None else {}
    of_backends = [(name, kinds.preflight(backend).inspection()) for name, backend in backends.items()]
    used = {kinds.kind_of(backend) for backend in backends.values()}
    others = [kinds.engine_kind(kind).usual for kind in kinds.FOLDERS if kind not in used]
    return [*of_backends, *((None, usual) for usual in others)]


def program(
    backend: str | None, inspection: Inspection, env: Mapping[str, str], seconds: float = VERSION_S
) -> ProgramFacts | None:
    """The program or module with its version; None where there is neither. Blocks, for so many seconds at worst."""
    if inspection.module is not None:
        return _module(backend, inspection, inspection.module, seconds)
    if inspection.program is None:
        return None
    command = inspection.program
    place = Path(command).expanduser()
    path = shutil.which(str(place), path=inspection.search or env.get("PATH", os.defpath))
    if path is None:
        return ProgramFacts(inspection.what, command, backend, is_file=place.is_file())
    version = _package_version(Path(path), inspection.package) if inspection.package is not None else None
    if version is not None:
        printed = _Printed(version)
    else:
        printed = _printed_version([path, *inspection.version_words], {**env, **inspection.env}, seconds)
    return ProgramFacts(
        inspection.what,
        command,
        backend,
        path,
        version=printed.version,
        trouble=printed.trouble,
        is_mute=printed.is_mute,
        flaw=inspection.flaw(printed.version) if printed.version is not None else None,
    )


def _package_version(program_path: Path, package: str) -> str | None:
    """The version of a Python package in the environment that the program is of; None where it is not such a one."""
    for place in (program_path, program_path.resolve()):
        for info in sorted(place.parent.parent.glob(f"lib/python3*/site-packages/{package}-*.dist-info")):
            return info.name.removeprefix(f"{package}-").removesuffix(".dist-info")
    return None


class _Printed(NamedTuple):
    """What a program told of itself: its version, or what is wrong with it, or (`is_mute`) why it did not tell it."""

    version: str | None = None
    trouble: str | None = None
    is_mute: bool = False


def _printed_version(command: Sequence[str], env: Mapping[str, str], seconds: float) -> _Printed:
    code, text = _run(command, env, seconds)
    if code is None:
        return _Printed(trouble=text, is_mute=text.startswith(_SILENT))
    # The last one: programs write notes before it.
    versions = _VERSION.findall("\n".join(text.splitlines()[-_LINES:]))
    if code == 0 and versions:
        return _Printed(str(versions[-1]))
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    said = f": {last[:_SHOWN]}" if last else ""
    if code == 0:
        return _Printed(trouble=f"{_SILENT}{said}", is_mute=True)
    return _Printed(trouble=f"`{' '.join(command)}` ended with exit code {code}{said}")


def _run(command: Sequence[str], env: Mapping[str, str], seconds: float) -> tuple[int | None, str]:
    """Its exit code and what it printed; None and a sentence where it did not start or end. Nothing of it stays."""
    try:
        process = subprocess.Popen(
            list(command),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as exc:
        return None, f"it cannot be run: {exc.strerror or exc}"
    try:
        text, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None, f"{_SILENT} within {seconds:.0f} s"
    return process.returncode, text


def _module(backend: str | None, inspection: Inspection, module: str, seconds: float) -> ProgramFacts:
    """Loaded by our own Python in a process of its own: what is missing for it, it says itself."""
    code, text = _run([sys.executable, "-c", f"import {module}"], os.environ, seconds)
    version = None
    with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version(inspection.package or module)
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    trouble = None if code == 0 else text if code is None else last[:_SHOWN] or f"it ended with exit code {code}"
    return ProgramFacts(
        inspection.what, module, backend, module if code == 0 else None, version=version, trouble=trouble
    )


def attached(config: Config, *, is_implied: bool) -> tuple[AttachedFacts, ...]:
    """Each engine that somebody else runs, asked as the gateway asks it. Blocks, for ANSWER_S at worst."""
    others = [
        (name, engine)
        for name, backend in config.backends.items()
        if backend.as_managed() is None
        for engine in backend.engines()
    ]
    return asyncio.run(_asked(others, is_implied=is_implied)) if others else ()


async def _asked(others: Sequence[tuple[str, BackendConfig]], *, is_implied: bool) -> tuple[AttachedFacts, ...]:
    asked = (_ask(name, backend, is_implied=is_implied) for name, backend in others)
    return tuple(await asyncio.gather(*asked))


async def _ask(name: str, backend: BackendConfig, *, is_implied: bool) -> AttachedFacts:
    where = str(backend.address().get("url", ""))
    try:
        engine = kinds.engine(name, backend)
        async with asyncio.timeout(ANSWER_S):
            probe = await engine.probe(engine.endpoint(0, 0, ""))
    except TimeoutError:
        return AttachedFacts(name, where, is_implied, reason=f"it did not answer within {ANSWER_S:.0f} s")
    except (BackendError, OSError) as exc:
        return AttachedFacts(name, where, is_implied, reason=str(exc))
    return AttachedFacts(
        name,
        where,
        is_implied,
        is_up=probe.is_up,
        version=probe.version,
        models=len(probe.models) if probe.models is not None else None,
        reason=probe.reason,
        flaw=probe.warning,
    )


def hub_folders(used: Sequence[Inspection], env: Mapping[str, str]) -> tuple[Path, ...]:
    """The caches that models of the hub are in: of the engines that take some, else the one that would be used."""
    environments = [each.env for each in used] or [{}]
    return tuple(dict.fromkeys(fetcher.cache(fetcher.environment(each, env)) for each in environments))


def hub(config: Config, env: Mapping[str, str]) -> tuple[HubFacts, ...]:
    """The models of the hub that backends name. The hub itself is not asked. Blocks shortly."""
    facts = []
    for name, backend in config.backends.items():
        inspection = kinds.preflight(backend).inspection()
        given = fetcher.environment(inspection.env, env)
        for model in inspection.hub:
            snapshots = cache.folder_of(Path(given["HF_HUB_CACHE"]), model) / "snapshots"
            facts.append(
                HubFacts(
                    name,
                    model,
                    is_here=any(cache.is_whole(each, _names(each)) for each in snapshots.glob("*")),
                    is_offline=given.get("HF_HUB_OFFLINE", "").lower() in _ON,
                    has_token=bool(given.get("HF_TOKEN") or given.get("HUGGING_FACE_HUB_TOKEN")),
                )
            )
    return tuple(facts)


def _names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
