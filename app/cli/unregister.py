"""`modelport unregister`: take back what `modelport register` made for a name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import completion
from app.cli.options import StateOption, config_errors_reported, fail, warn

if TYPE_CHECKING:
    from app.registration.journal import Made


def unregister(
    name: Annotated[str, typer.Argument(help="The name that was registered.", autocompletion=completion.models)],
    state: StateOption = None,
) -> None:
    """Take a registered name out of the configuration and the daemon, and remove its files; nothing else is touched."""
    from app.cli.register_gateway import reloaded
    from app.cli.register_progress import ShownProgress
    from app.cli.registering import state_ready, told_in_one_sentence
    from app.registration.journal import Content, folder_of, names, opened, read

    folder = folder_of(state_ready(state), name)
    with config_errors_reported(), told_in_one_sentence():
        if read(folder) is None:
            known = ", ".join(names(folder.parent.parent)) or "none"
            fail(f"'{name}' is not registered here (registered: {known}).")
        with opened(folder, lambda: Content(name=name, source="", config="")) as journal, ShownProgress() as tell:
            config = Path(journal.content.config)
            left, gone = _entries_removed(config, journal.made())
            # First out of routing, then away: nobody is sent to what is not there any more.
            if _has_models(config):
                reloaded(config, state, tell)
            elif config.exists():
                left.append(_left_empty(config, gone, state))
            left += _taken_back(journal.made())
            journal.erase()
    for line in left:
        warn(line)
    typer.echo(f"{name}: unregistered. Its source, {journal.content.source}, is as it was.")


def _has_models(config: Path) -> bool:
    from app.config.yaml_edit import read
    from app.registration.config_step import tree_of

    return bool(tree_of(read(config)).get("models"))


def _left_empty(config: Path, gone: Sequence[str], state: Path | None) -> str:
    """End the engines that are `gone` from a file that names no model any more, which no gateway would read again;
    returns a sentence about the file.
    """
    from app.cli.register_gateway import stopped

    next_time = "`modelport register` or `modelport add` gives it one before the next start"
    if stopped(config, gone, state):
        return f"{config} names no model any more: the gateway runs on with the engine stopped; {next_time}."
    return f"{config} names no model any more: {next_time}."


def _entries_removed(config: Path, made: Sequence[Made]) -> tuple[list[str], list[str]]:
    """Take the entries out of the file; returns sentences about those that stay, and the backends that are gone."""
    from app.config.yaml_edit import read, write
    from app.registration.config_step import at, tree_of, without
    from app.registration.journal import held

    with held(config):
        text = read(config)
        after, left = without(text, [each for each in made if each.what == "entry"])
        if after != text:
            write(config, after)
        backends, before = at(tree_of(after), ("backends",)) or {}, at(tree_of(text), ("backends",)) or {}
    return left, [str(name) for name in before if name not in backends]


def _taken_back(made: Sequence[Made]) -> list[str]:
    from app.registration.registrar import take_back

    return [line for each in made if (line := take_back(each)) is not None]
