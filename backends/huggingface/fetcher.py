"""What an engine has from the Hugging Face hub: brought here by a process of its own before the engine starts.

Which commit a branch was is found out once and remembered in the state folder, so that every later start has the same,
and needs no network when the cache has it (cache.py). The process is child.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from backends.engine import Launch, Progress
from backends.huggingface.cache import IS_REPOSITORY, Pin, in_words, is_here, remembered, snapshot
from backends.process.exit_reasons import exit_in_words, signal_of
from backends.process.process import inherited

_SECRET: Final = re.compile(r"TOKEN|KEY|SECRET|PASSWORD", re.IGNORECASE)
_SHORTEST_SECRET: Final = 6  # anything shorter would be found in every second line
# How this machine reaches others; an engine that is offline does not need it.
_NETWORK: Final = frozenset({"http_proxy", "https_proxy", "no_proxy", "all_proxy", "requests_ca_bundle", "hf_endpoint"})


class HubFetcher:
    """The models of one engine. `pins`: the folder where is remembered which commits they are."""

    def __init__(self, pins: Path, env: Mapping[str, str], models: Callable[[], Mapping[str, str | None]]) -> None:
        self._pins = pins
        self._env = env
        self._models = models

    def missing(self) -> Launch | None:
        """The process that brings what is not here; None when all is."""
        env = environment(self._env, os.environ)
        wants = []
        for model, revision in self._models().items():
            pin = self._pin(model, revision)
            if pin is None or not is_here(cache(env), pin):
                commit = pin.commit if pin is not None else None
                path = str(self._path(model, revision))
                wants.append(json.dumps({"model": model, "revision": revision, "commit": commit, "pin": path}))
        if not wants:
            return None
        child = Path(__file__).with_name("child.py")
        return Launch((sys.executable, "-I", str(child), *wants), env, explain, secrets_in(env))

    def progress(self, tail: Sequence[str]) -> Progress | None:
        """What the process has said last; None before it knows what there is to do."""
        return progress(tail)

    def commit(self, model: str, revision: str | None) -> str | None:
        """The commit that this is, where that is known."""
        pin = self._pin(model, revision)
        return pin.commit if pin is not None else None

    def folder(self, model: str, revision: str | None) -> Path | None:
        """Where its files are, once they are."""
        pin = self._pin(model, revision)
        found = snapshot(cache(environment(self._env, os.environ)), pin) if pin is not None else None
        return found if found is not None and found.is_dir() else None

    def _pin(self, model: str, revision: str | None) -> Pin | None:
        return remembered(self._path(model, revision), model, revision)

    def _path(self, model: str, revision: str | None) -> Path:
        digest = hashlib.sha256(f"{model}@{revision or ''}".encode()).hexdigest()[:12]
        return self._pins / f"{model.replace('/', '--')}-{digest}.json"


def is_repository(model: str) -> bool:
    """Whether this can be the name of a model on the hub: `name` or `organisation/name`."""
    return IS_REPOSITORY.fullmatch(model) is not None and ".." not in model and "--" not in model


def environment(configured: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    """That of the process: the engine's, and how this machine reaches the network."""
    network = {name: value for name, value in ours.items() if name.lower() in _NETWORK}
    env = {**network, **inherited(ours), **configured}
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_VERBOSITY": "error"}
    return {**quiet, **env, "HF_HUB_CACHE": str(cache(env))}


def cache(env: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps models for a process with this environment."""
    home = env.get("HOME") or str(Path.home())
    named = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
    if named is None:
        above = env.get("HF_HOME") or f"{env.get('XDG_CACHE_HOME') or f'{home}/.cache'}/huggingface"
        named = f"{above}/hub"
    expanded = re.sub(r"^~(?=/|$)", lambda _: home, named)
    return Path(re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda at: env.get(at[1] or at[2], at[0]), expanded)).absolute()


def secrets_in(env: Mapping[str, str]) -> tuple[str, ...]:
    """The values that nobody is to see in a log, by the names of their variables."""
    return tuple(value for name, value in env.items() if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET)


def progress(tail: Sequence[str]) -> Progress | None:
    """How far a download is, from the lines that its process has printed."""
    for line in reversed(tail):
        if found := re.fullmatch(r"downloaded (\d+) of (\d+) bytes(?:, checked (\d+))?", line):
            done, total, checked = int(found[1]), int(found[2]), int(found[3] or 0)
            percent = done * 100 // total if total else 100
            return Progress(f"downloading {percent} % of {in_words(total)}", done, total, checked)
    return None


def explain(code: int, tail: Sequence[str], has_served: bool = False) -> str:
    """Why it ended without having brought everything."""
    if signal_of(code) is not None:
        return f"the download of its model failed: {exit_in_words(code, tail)}"
    told = next((line for line in reversed(tail) if line.startswith("failed: ")), None)
    if told is not None:
        return told.removeprefix("failed: ")
    if any("No module named 'huggingface_hub" in line for line in tail):
        return "the package huggingface_hub is not installed beside the gateway"
    return f"the download of its model failed: {exit_in_words(code, tail)}"
