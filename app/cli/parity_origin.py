"""What a served model was made from, as `modelport parity` finds it out: told, registered, or served from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Origin:
    """The folder that was trained, and what else is known of its training.

    `is_told`: somebody named the folder, and the gateway knows of none; `is_other`: what was told is not what the name
    was registered with or is served from, so that the outcome says nothing of the name to others. `borrowed`: it is the
    other model's of a comparison.
    """

    folder: Path
    base: Path | None = None
    template: str | None = None
    training: Path | None = None
    context: int | None = None
    is_told: bool = False
    is_other: bool = False
    borrowed: bool = False

    @property
    def held_against(self) -> str | None:
        """The folder's name, where a list of models has to say that the outcome depends on it."""
        return (self.folder.name or str(self.folder)) if self.is_told or self.borrowed else None


@dataclass(frozen=True, slots=True)
class Told:
    """What the command line says of it."""

    folder: Path | None = None
    template: str | None = None
    training: Path | None = None


def origin(told: Told, registered: Origin | None, served: Path | None) -> Origin | None:
    """Of one model. `registered`: what its name was registered from; `served`: the folder that is served from. What is
    told goes before what is registered. Blocks: it looks at the folders.
    """
    home = registered.folder if registered is not None else served
    folder = told.folder or home
    if folder is None:
        return None
    if told.folder is not None and registered is None and (told.folder / "adapter_config.json").is_file():
        home = None  # an adapter is served beside its base's files: these are not what was trained
    is_elsewhere = told.folder is not None and home is not None and told.folder.resolve() != home.resolve()
    training = (told.template, told.training)
    if registered is None or is_elsewhere:
        return Origin(folder, None, *training, is_told=home is None, is_other=is_elsewhere)
    known = (registered.template, registered.training)
    if training == (None, None):
        training = known
    return Origin(folder, registered.base, *training, registered.context, is_other=training != known)


def registered_from(name: str, state: Path) -> Origin | None:
    """What the public name was registered from; None where it was not. RegistrationError where its journal cannot be
    read. Blocks.
    """
    from app.registration.journal import serving

    content = serving(state, name)
    if content is None:
        return None
    base = Path(content.base) if content.base is not None else None
    return Origin(
        Path(content.source),
        base if base is not None and base.is_dir() else None,
        content.template,
        Path(content.training) if content.training is not None else None,
        content.context,
    )


def in_order(names: list[str], listed: Mapping[str, object]) -> list[str]:
    """Those first that the gateway does not list: it may have none of that name, and nothing is to be started then."""
    return sorted(names, key=lambda name: name in listed)
