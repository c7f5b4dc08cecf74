"""`modelport parity`: whether what the running gateway serves is what was trained."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from app.cli import completion
from app.cli.admin_client import call, socket_of
from app.cli.options import REFUSED, JsonOption, StateOption, fail, refuse_missing, sentence, warn
from app.cli.parity_origin import Origin, Told, in_order, origin, registered_from
from app.cli.tables import show
from app.cli.toolbox import YesOption, tool_errors_reported, toolbox

if TYPE_CHECKING:
    from app.certificate.certificate import Certificate
    from app.certificate.observation import Observation
    from app.certificate.serving import Expectation
    from app.reference.reference import Reference

# One group of questions: an engine may have to be started first, and answers of slow machines take minutes.
_TIMEOUT_S = 1800.0


def parity(
    model: Annotated[str, typer.Argument(help="A public name.", autocompletion=completion.models)],
    other: Annotated[
        str | None,
        typer.Argument(
            help="Another public name, to compare it with.", show_default=False, autocompletion=completion.models
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            help="The folder that was trained, in Hugging Face layout. Else the registered or the served one.",
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            "--template", help="LLaMA-Factory's name of the template that it was trained with, or `tokenizer`."
        ),
    ] = None,
    training: Annotated[
        Path | None, typer.Option("--training", help="LLaMA-Factory's training file, which names the template.")
    ] = None,
    context_length: Annotated[
        int | None, typer.Option("--context-length", min=16, help="Tokens of context that it must take.")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Tokens of each greedy answer.")] = 64,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the certificate is written. Else into the model's folder.")
    ] = None,
    yes: YesOption = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold a served model against what it was trained on, and against another one; exit code 1 where anything differs.

    Its engine is started where it does not run, and is asked for the prompts that it builds, where it stops, how much
    context it takes, what it draws with, and greedy answers.
    """
    from app.certificate import report

    refuse_missing(training)
    served = _looked([model, *([other] if other else ())], state)
    make_folder(out)
    subjects = _subjects(served, Told(folder, template, training), context_length, state, yes=yes)
    certificates = _certificates(subjects, tokens, state)
    places = [out or (each.origin.folder if each.origin is not None else None) for each in subjects]
    for made, place in zip(certificates, places, strict=True):
        _write(made, place)
    if as_json:
        typer.echo("[" + ",\n".join(report.as_json(each).rstrip() for each in certificates) + "]")
    else:
        for made in certificates:
            typer.echo(f"\n{report.heading(made)}\n{made.reference}\n")
            show(report.COLUMNS, report.rows(made))
    if any(each.failed for each in certificates):
        raise typer.Exit(REFUSED)


class _Subject(NamedTuple):
    """A served model, what it was made from, what it was trained on, and what is expected of it."""

    seen: Observation
    origin: Origin | None
    reference: Reference | None
    expected: Expectation


def _certificates(subjects: list[_Subject], tokens: int, state: Path | None) -> list[Certificate]:
    """One for each, kept by the gateway; the first is held against the second, too."""
    from app.certificate import certify

    client = _client(state)
    seen = [
        certify.observe(
            each.seen.model, each.reference, client, expected=each.expected, max_tokens=tokens, report=_tell
        )
        for each in subjects
    ]
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    made = []
    for at, (asked, subject) in enumerate(zip(seen, subjects, strict=True)):
        against = seen[1] if at == 0 and len(seen) > 1 else None
        folder = subject.origin.held_against if subject.origin is not None else None
        made.append(
            certify.judge(
                asked, subject.reference, expected=subject.expected, against=against, held_against=folder, date=today
            )
        )
        if subject.origin is not None and subject.origin.is_other:
            _tell(f"{asked.model}: you named another origin than its own, so lists of models do not show this.")
        elif (shown := certify.keep(made[-1], client)) is not None:
            _tell(f"{asked.model}: this checked less than what is known of the same serving, which stays: {shown}")
    return made


def _tell(text: str) -> None:
    typer.echo(text, err=True)


def _client(state: Path | None) -> Any:
    return lambda method, path, body: call(method, path, state, body=body, timeout_s=_TIMEOUT_S)


def _looked(names: list[str], state: Path | None) -> list[Observation]:
    """Which engine serves each, and from which file."""
    from app.certificate import certify

    models = call("GET", "/admin/models", state)["models"]
    listed = {name: each for each in models for name in (each["name"], *(each.get("aliases") or ()))}
    seen = {}
    for name in in_order(names, listed):
        if name in listed and listed[name]["state"] != "ready":
            _tell(f"{name}: making it ready …")
        seen[name] = certify.look(name, _client(state))
    return [seen[name] for name in names]


def _subjects(
    served: list[Observation], told: Told, length: int | None, state: Path | None, *, yes: bool
) -> list[_Subject]:
    """What each is held against. A model of which nothing is known is held against what the first one is."""
    from app.certificate.expectation import expectation, folder_of
    from app.certificate.serving import Expectation
    from app.registration.journal import RegistrationError

    try:
        known = [registered_from(each.model, socket_of(state).parent) for each in served]
    except RegistrationError as exc:
        fail(str(exc))
    origins = [origin(told, mine, folder_of(each.file)) for each, mine in zip(served, known, strict=True)]
    first = next((each for each in origins if each is not None), None)
    references: dict[tuple[Any, ...], Reference | None] = {}
    subjects = []
    for seen, own in zip(served, origins, strict=True):
        mine = own or (dataclasses.replace(first, borrowed=True) if first is not None else None)
        key = (mine.folder, mine.base, mine.template, mine.training) if mine is not None else ()
        if key not in references:
            references[key] = _reference(mine, told, state, yes=yes)
        reference = references[key]
        tokens = length or (mine.context if mine is not None else None) or (reference.cutoff_len if reference else None)
        is_there = mine is not None and mine.folder.is_dir()
        expected = (
            expectation(mine.folder, seen.file, tokens, mine.base)
            if mine is not None and is_there
            else Expectation(context_length=tokens)
        )
        subjects.append(_Subject(seen, mine if is_there else None, reference, expected))
    return subjects


def _reference(of: Origin | None, told: Told, state: Path | None, *, yes: bool) -> Reference | None:
    from app.reference.reference import ReferenceProblem, reference

    if of is None:
        if told.template is not None or told.training is not None:
            fail("The folder that was trained is not known here: name it with --folder.")
        warn("What it was trained on is not known: it is not registered, and no folder is served or named by --folder.")
        return None
    if told.folder is None and not of.folder.is_dir():
        warn(f"What it was registered from, {of.folder}, is not there any more: --folder names where it is now.")
        return None
    with tool_errors_reported():
        try:
            tools = toolbox(state, yes=yes)
            return reference(of.folder, tools, template=of.template, training=of.training, base=of.base)
        except ReferenceProblem as exc:
            fail(sentence(exc))


def make_folder(out: Path | None) -> None:
    """Make the folder of `--out`, before minutes of work that would be for nothing; ends the command where it cannot be
    made.
    """
    if out is None:
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        fail(f"--out {out} cannot be made: {exc.strerror or exc}.", 2)


def _write(made: Certificate, folder: Path | None) -> None:
    """As JSON and Markdown; a folder that cannot be written is only said."""
    from app.certificate import report
    from app.whole_file import write_whole

    if folder is None:
        return
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in made.model)
    try:
        for suffix, text in ((".json", report.as_json(made)), (".md", report.as_markdown(made))):
            path = folder / f"certificate-{name}{suffix}"
            write_whole(path, text.encode())
            _tell(f"wrote {path}")
    except OSError as exc:
        warn(f"The certificate cannot be written into {folder}: {exc.strerror} (--out names another folder).")
