"""What is allowed in a configuration and probably a mistake, as far as this machine tells."""

from __future__ import annotations

from app.config.model import Config
from backends.config.base import BackendConfig
from backends.kinds import PROFILES, kind_of, preflight
from backends.remote.config import RemoteConfig


def unused_backends(config: Config) -> list[str]:
    """The backends that no model uses. Pure."""
    used = {target.backend for model in config.models.values() for target in model.all_targets()}
    # An adapter is public by itself.
    used |= {name for name, each in config.backends.items() if (run := each.as_managed()) and run.adapter_paths()}
    return [name for name in config.backends if name not in used]


def alone(config: Config) -> list[str]:
    """The models whose streams are to go on elsewhere, and which have no two engines that could be equal. Pure."""
    models = []
    for name, model in config.models.items():
        runs = [
            config.backends[each.backend].as_managed()
            for each in model.all_targets()
            if each.backend in config.backends
        ]
        equal = [run.replicas for run in runs if run is not None and PROFILES[kind_of(run)].tells_tokens is not None]
        if model.continue_streams and sum(equal) < 2:
            models.append(name)
    return models


def of_one_engine(config: Config) -> list[str]:
    """The models for which one of several engines is to be chosen in a certain way, and which have only one. Pure."""
    models = []
    for name, model in config.models.items():
        backends = [config.backends[each.backend] for each in model.all_targets() if each.backend in config.backends]
        if model.route in ("prefix", "session") and sum(map(_engines, backends)) == 1:
            models.append(name)
    return models


def unpriced(config: Config) -> list[int]:
    """The keys, by their places, whose budget is of money while no model costs any. Pure."""
    if any(model.price is not None for model in config.models.values()):
        return []
    return [at for at, key in enumerate(config.keys) if key.budget is not None and key.budget.money is not None]


def _engines(backend: BackendConfig) -> int:
    """How many engines an entry stands for; of those that are looked up by name, as many as can make a difference."""
    managed = backend.as_managed()
    if managed is not None:
        return managed.replicas
    return 2 if isinstance(backend, RemoteConfig) and backend.addresses == "dns" else len(backend.engines())


def warnings(config: Config) -> list[tuple[str, str]]:
    """Each as its place in the file and a sentence: backends that no model uses, settings without an effect, files and
    programs that are missing on this machine or broken. Blocks: it looks for them.
    """
    notes = [(f"backends.{name}", "no model uses it") for name in unused_backends(config)]
    no_effect = "has no effect: there are no two equal engines of vLLM or llama.cpp (`replicas` of its backend)"
    notes += [(f"models.{name}.continue_streams", no_effect) for name in alone(config)]
    one = "has no effect: there is one engine to choose (`replicas` or `urls` of its backend, or `targets`)"
    notes += [(f"models.{name}.route", one) for name in of_one_engine(config)]
    free = "has no effect: no model has a `price`, so nothing is spent"
    notes += [(f"keys[{at}].budget.money", free) for at in unpriced(config)]
    for name, backend in config.backends.items():
        notes += [(f"backends.{name}.{key}", problem) for key, problem in preflight(backend).missing()]
    return notes
