"""What an engine needs from the Hugging Face hub: downloaded by a process of its own before the engine starts.

Which commit a branch stands for is looked up once and remembered in the state folder (a *pin*), so that every later
start has the same commit, and needs no network when the cache has it (backends/huggingface/cache.py). The process is
backends/huggingface/child.py.
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
    """Fulfils Fetcher for the models of one engine.

    `pins`: the folder that remembers their commits. `env`: the engine's environment variables, which may name the cache
    and hold a token. `models`: what it needs of the hub now, with the configured revisions.
    """

    def __init__(self, pins: Path, env: Mapping[str, str], models: Callable[[], Mapping[str, str | None]]) -> None:
        self._pins = pins
        self._env = env
        self._models = models

    def missing(self) -> Launch | None:
        """The process that downloads what is not here; None when all of it is."""
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
        """What the process reported last; None before it knows how much there is to do."""
        return progress(tail)

    def commit(self, model: str, revision: str | None) -> str | None:
        """The commit that this revision of the model is pinned to; None where it was not looked up yet."""
        pin = self._pin(model, revision)
        return pin.commit if pin is not None else None

    def folder(self, model: str, revision: str | None) -> Path | None:
        """The folder with its files; None where they are not here."""
        pin = self._pin(model, revision)
        path = snapshot(cache(environment(self._env, os.environ)), pin) if pin is not None else None
        return path if path is not None and path.is_dir() else None

    def _pin(self, model: str, revision: str | None) -> Pin | None:
        return remembered(self._path(model, revision), model, revision)

    def _path(self, model: str, revision: str | None) -> Path:
        digest = hashlib.sha256(f"{model}@{revision or ''}".encode()).hexdigest()[:12]
        return self._pins / f"{model.replace('/', '--')}-{digest}.json"


def is_repository(model: str) -> bool:
    """Whether this can be the name of a model on the hub: `name` or `organisation/name`."""
    return IS_REPOSITORY.fullmatch(model) is not None and ".." not in model and "--" not in model


def environment(configured: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    """The environment of the process: what the engine has (`configured` over what it inherits from `ours`), and how
    this machine reaches the network.
    """
    network = {name: value for name, value in ours.items() if name.lower() in _NETWORK}
    env = {**network, **inherited(ours), **configured}
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_VERBOSITY": "error"}
    return {**quiet, **env, "HF_HUB_CACHE": str(cache(env))}


def cache(env: Mapping[str, str]) -> Path:
    """The folder in which huggingface_hub keeps models for a process with this environment."""
    home = env.get("HOME") or str(Path.home())
    named = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
    if named is None:
        hf_home = env.get("HF_HOME") or f"{env.get('XDG_CACHE_HOME') or f'{home}/.cache'}/huggingface"
        named = f"{hf_home}/hub"
    expanded = re.sub(r"^~(?=/|$)", lambda _: home, named)
    return Path(re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda at: env.get(at[1] or at[2], at[0]), expanded)).absolute()


def secrets_in(env: Mapping[str, str]) -> tuple[str, ...]:
    """The values that must not appear in a log: those of variables whose names speak of tokens, keys and passwords."""
    return tuple(value for name, value in env.items() if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET)


def environment_settings(env: Mapping[str, str]) -> tuple[str, ...]:
    """An engine's configured variables as texts, without those that may be secrets."""
    return tuple(f"env:{name}={value}" for name, value in env.items() if not _SECRET.search(name))


def progress(tail: Sequence[str]) -> Progress | None:
    """How far a download is, from the lines that its process has printed."""
    for line in reversed(tail):
        if match := re.fullmatch(r"downloaded (\d+) of (\d+) bytes(?:, checked (\d+))?", line):
            done, total, checked = int(match[1]), int(match[2]), int(match[3] or 0)
            percent = done * 100 // total if total else 100
            return Progress(f"downloading {percent} % of {in_words(total)}", done, total, checked)
    return None


def explain(code: int, tail: Sequence[str], has_served: bool = False) -> str:
    """Why the process ended without having downloaded everything, in one sentence fit for a client."""
    if signal_of(code) is not None:
        return f"the download of its model failed: {exit_in_words(code, tail)}"
    failure = next((line for line in reversed(tail) if line.startswith("failed: ")), None)
    if failure is not None:
        return failure.removeprefix("failed: ")
    if any("No module named 'huggingface_hub" in line for line in tail):
        return "the package huggingface_hub is not installed beside the gateway"
    return f"the download of its model failed: {exit_in_words(code, tail)}"
