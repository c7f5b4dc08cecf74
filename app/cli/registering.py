"""What `modelport register` does, from its flags to a certificate."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from app.cli.options import config_errors_reported, fail, print_json, sentence

if TYPE_CHECKING:
    from app.cli.register_progress import ShownProgress
    from app.cli.register_targets import EnginesHere, Source
    from app.reference.reference import Reference
    from app.registration.journal import Content, Journal
    from app.registration.order import Order
    from backends.toolenv.environment import Toolbox


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line of `modelport register`, paths absolute."""

    folder: Path
    name: str
    engines: tuple[str, ...]
    outtype: str
    template: str | None = None
    training: Path | None = None
    base: str | None = None
    merge: bool = False
    context: int | None = None
    settings: tuple[str, ...] = ()
    vllm_command: str | None = None
    ollama_url: str | None = None
    replace: bool = False
    certificate: bool = True
    trust_remote_code: bool = False
    yes: bool = False
    config: Path | None = None
    state: Path | None = None
    as_json: bool = False


@contextlib.contextmanager
def told_in_one_sentence() -> Iterator[None]:
    """What a part of the work raises ends the command with its sentence and exit code 1."""
    from app.conversion.errors import ConversionError, NoPlace
    from app.reference.reference import ReferenceProblem
    from app.registration.journal import RegistrationError
    from backends.toolenv.environment import ToolError

    try:
        yield
    except NoPlace as exc:
        fail(f"{exc.elsewhere('choose another state folder with --state')}.")
    except (ConversionError, ReferenceProblem, RegistrationError, ToolError) as exc:
        fail(sentence(exc))


def state_ready(state: Path | None) -> Path:
    """The state folder, made where it is missing. Ends the command where it cannot be used."""
    from app.config.settings import Settings, state_folder
    from app.supervisor.state_folder import StateError, prepare

    with config_errors_reported():
        folder = state_folder(state or Settings.from_env(os.environ).modelport_state)
    try:
        prepare(folder)
    except StateError as exc:
        fail(sentence(exc))
    return folder


def config_file(config: Path | None) -> Path:
    """The configuration file, which may not be there yet; absolute."""
    from app.config.settings import CONFIG_NAME, Settings, config_path

    path = config_path(config or Settings.from_env(os.environ).modelport_config) or Path(CONFIG_NAME)
    return path.expanduser().absolute()


def registered(asked: Asked) -> None:
    """Do all of it. Ends the command with exit code 1 where it cannot be done, or where the certificate says no."""
    from app import log
    from app.cli.register_progress import ShownProgress
    from app.cli.register_targets import look_around, ordered, source_of
    from app.cli.toolbox import toolbox
    from app.registration.journal import Content, folder_of, opened

    log.set_up("console", "warning")
    _refuse_outtype(asked.outtype)
    state = state_ready(asked.state)
    with config_errors_reported(), told_in_one_sentence():
        source = source_of(asked)
        path = config_file(asked.config)
        machine = look_around(asked, path)
        order = ordered(asked, source, path, machine)
        tools = toolbox(asked.state, yes=asked.yes)

        def fresh() -> Content:
            return Content(name=asked.name, source=str(asked.folder), config=str(path))

        with opened(folder_of(state, asked.name), fresh) as journal, ShownProgress() as tell:
            is_first = not journal.content.steps
            try:
                outcome = _run(asked, source, order, machine, tools, journal, tell)
            except BaseException:
                if is_first:
                    _leave(journal)
                raise
    _report(asked, outcome)


def _refuse_outtype(outtype: str) -> None:
    """End the command with exit code 2 where there is no such type of weights."""
    from app.conversion.errors import ConversionError
    from app.conversion.room import check_outtype

    try:
        check_outtype(outtype)
    except ConversionError as exc:
        fail(f"--outtype: {exc}.", 2)


def with_origin(content: Content, asked: Asked, order: Order) -> Content:
    """The journal with what this run was told of the model, for who asks later what it was made from."""
    import msgspec

    return msgspec.structs.replace(
        content,
        base=order.base,
        template=asked.template,
        training=str(asked.training) if asked.training is not None else None,
        context=order.context,
    )


def _leave(journal: Journal) -> None:
    """Nothing is left of a run in which no step was finished."""
    if not any(record.seconds is not None for record in journal.content.steps.values()):
        journal.erase()


def _run(
    asked: Asked,
    source: Source,
    order: Order,
    machine: EnginesHere,
    tools: Toolbox,
    journal: Journal,
    tell: ShownProgress,
) -> dict[str, Any]:
    from app.cli.register_gateway import in_force, proved, running_config
    from app.cli.register_targets import Converting, trained_of, write_entries
    from app.reference.reference import reference
    from app.registration.daemon import OllamaDaemon
    from app.registration.registrar import Registrar, refuse_taken

    with contextlib.ExitStack() as stack:
        url = next((each.url for each in order.servings if each.url), None)
        daemon = stack.enter_context(OllamaDaemon(url)) if url is not None else None
        version = daemon.version() if daemon is not None else None
        refuse_taken(order, journal, machine.tree, daemon)
        journal.content = with_origin(journal.content, asked, order)
        for line in machine.notes:
            tell.say(line)
        if source.unservable is not None and "vllm" in machine.engines:
            tell.say(f"vLLM cannot serve it as an adapter, so it is merged with its base: {source.unservable}.")
        tell.step("finding out what it was trained on")
        base = Path(order.base) if order.base is not None and Path(order.base).is_dir() else None
        trained_on = reference(asked.folder, tools, template=asked.template, training=asked.training, base=base)
        _tell_reference(trained_on, tell)
        trained = trained_of(source, trained_on, version)
        making = Converting(tools, tell, trust_remote_code=asked.trust_remote_code)
        registrar = Registrar(order, journal, trained, making, tell, daemon=daemon)
        registrar.read()
        artifacts = {each: registrar.artifact(each) for each in order.servings}
        write_entries(order, artifacts, trained, machine, source, journal, registrar)
        registrar.retire()
        models = in_force(order, asked.state, tell)
        certificates = []
        is_up = models is not None and not any(each["state"] == "failed" for each in models.values())
        if asked.certificate and is_up:
            certificates = proved(order, artifacts, trained, trained_on, journal.folder, asked.state, tell)
        registrar.complete()
    return {
        "name": asked.name,
        "config": str(order.config),
        "trained_on": trained_on.reason,
        "models": [
            {"name": each.name, "engine": each.engine, **(models or {}).get(each.name, {})} for each in order.servings
        ],
        "is_served": models is not None,
        "running_config": running_config(asked.state) if models is None else str(order.config),
        "certificates": certificates,
        "log": str(journal.folder / "log.txt"),
    }


def _tell_reference(trained_on: Reference, tell: ShownProgress) -> None:
    tell.say(f"Trained on: {trained_on.reason}")
    if trained_on.chat_template is not None:
        how = f": {trained_on.own_difference}" if trained_on.own_difference else ""
        tell.say(f"The tokenizer's own template differs from that{how}. What was trained is what is served.")
    for note in trained_on.notes:
        tell.say(f"Note: {note}")


def how_to_serve(config: str, theirs: str | None) -> str:
    """What to do where no gateway serves it. `theirs`: the configuration of a gateway that runs, None: none does."""
    if theirs is None:
        return f"No gateway is running: `modelport serve --config {config}` serves it."
    return (
        f"The gateway that runs has {theirs} and does not serve it: end it and start `modelport serve --config "
        f"{config}`, or start that with another --state."
    )


def _report(asked: Asked, outcome: Mapping[str, Any]) -> None:
    failed = [each for each in outcome["models"] if each.get("state") == "failed"]
    refuted = [each for each in outcome["certificates"] if each["failed"]]
    if asked.as_json:
        print_json(outcome)
    else:
        for each in outcome["models"]:
            state = each.get("state", "written")
            typer.echo(f"{each['name']}: {each['engine']}, {state}")
        if not outcome["is_served"]:
            typer.echo(how_to_serve(outcome["config"], outcome["running_config"]))
        typer.echo(f"Log: {outcome['log']}")
    if failed:
        fail([f"{each['name']}: {each.get('reason')}" for each in failed])
    if refuted:
        fail([f"{each['model']}: {each['summary']}" for each in refuted])
