"""The servings of one start of an engine, from what it read and the digests of these files. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from app.supervisor.fleet.status import Started
from app.table import Serving
from backends.kinds import PROFILES
from backends.model_files.digests import role_digest, serving_digest
from backends.model_files.sources import FileStamp, SourceFile

Digests = Mapping[FileStamp, str]
_LATEST = ":latest"


def servings(start: Started, digests: Digests, changed: Collection[FileStamp]) -> dict[str, Serving]:
    """What is known of each model that it serves, by the engine's own name; "" stands for every other name.

    `digests`: of files as they were before the start, as far as they are known; a serving with another one is left out.
    `changed`: the files that are different now.
    """
    if start.digests:
        return _of_daemon(start)
    if start.sources is None or not all(file.stamp in digests for file in _unchanged(start.sources.files, changed)):
        return {}
    base = _serving(start, start.sources.files, digests, changed)
    if PROFILES[start.kind].ignores_model_name:
        return {"": base}
    known = {name: base for name in start.models or (start.name,) if name not in start.adapters}
    for name, sources in start.adapters.items():
        if sources is not None and all(file.stamp in digests for file in _unchanged(sources.files, changed)):
            known[name] = _serving(start, (*start.sources.files, *sources.files), digests, changed)
    return known


def _unchanged(files: Collection[SourceFile], changed: Collection[FileStamp]) -> list[SourceFile]:
    return [file for file in files if file.stamp not in changed]


def _serving(
    start: Started, files: tuple[SourceFile, ...], digests: Digests, changed: Collection[FileStamp]
) -> Serving:
    if any(file.stamp in changed for file in files):
        return Serving(None)
    parts = {
        "weights": role_digest("weights", files, digests),
        "settings": role_digest("settings", files, digests),
        "template": role_digest("template", files, digests),
        "adapter": role_digest("adapter", files, digests),
    }
    settings = start.sources.settings if start.sources is not None else ()
    digest = serving_digest(start.kind, start.version, parts, settings)
    return Serving(digest, parts["weights"], parts["template"], parts["adapter"])


def _of_daemon(start: Started) -> dict[str, Serving]:
    """A daemon's own digest is that of everything in a model: weights, template, parameters, system prompt, adapter."""
    known: dict[str, Serving] = {}
    for name, of_model in start.digests.items():
        settings = [f"num_ctx={start.num_ctx.get(name)}"]
        serving = Serving(serving_digest(start.kind, start.version, {"model": of_model}, settings), of_model)
        known[name] = serving
        if name.endswith(_LATEST):
            known[name.removesuffix(_LATEST)] = serving
    return known
