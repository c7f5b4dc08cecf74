"""What is allowed in a configuration and probably a mistake, as far as this machine tells."""

from __future__ import annotations

from app.config.model import Config
from backends.kinds import preflight


def unused_backends(config: Config) -> list[str]:
    """The backends that no model uses. Pure."""
    used = {target.backend for model in config.models.values() for target in model.all_targets()}
    # An adapter is public by itself.
    used |= {name for name, each in config.backends.items() if (run := each.as_managed()) and run.adapter_paths()}
    return [name for name in config.backends if name not in used]


def warnings(config: Config) -> list[tuple[str, str]]:
    """Each as its place in the file and a sentence: backends that no model uses, files and programs that are missing on
    this machine or broken. Blocks: it looks for them.
    """
    notes = [(f"backends.{name}", "no model uses it") for name in unused_backends(config)]
    for name, backend in config.backends.items():
        notes += [(f"backends.{name}.{key}", problem) for key, problem in preflight(backend).missing()]
    return notes
