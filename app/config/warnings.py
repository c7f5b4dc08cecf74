"""What is allowed in a configuration and probably a mistake, as far as this machine tells."""

from __future__ import annotations

from app.config.model import Config
from backends.kinds import PROFILES, kind_of, preflight


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


def warnings(config: Config) -> list[tuple[str, str]]:
    """Each as its place in the file and a sentence: backends that no model uses, settings without an effect, files and
    programs that are missing on this machine or broken. Blocks: it looks for them.
    """
    notes = [(f"backends.{name}", "no model uses it") for name in unused_backends(config)]
    no_effect = "has no effect: there are no two equal engines of vLLM or llama.cpp (`replicas` of its backend)"
    notes += [(f"models.{name}.continue_streams", no_effect) for name in alone(config)]
    for name, backend in config.backends.items():
        notes += [(f"backends.{name}.{key}", problem) for key, problem in preflight(backend).missing()]
    return notes
