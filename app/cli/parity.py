"""`modelport parity`: whether what the running gateway serves is what was trained."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.admin_client import call
from app.cli.options import REFUSED, JsonOption, StateOption, fail, refuse_missing, sentence, warn
from app.cli.tables import show
from app.cli.toolbox import YesOption, tool_errors_reported, toolbox

if TYPE_CHECKING:
    from app.certificate.certificate import Certificate
    from app.certificate.observation import Observation
    from app.reference.reference import Reference

# One group of questions: an engine may have to be started first, and answers of slow machines take minutes.
_TIMEOUT_S = 1800.0


def parity(
    model: Annotated[str, typer.Argument(help="A public name.")],
    other: Annotated[
        str | None, typer.Argument(help="Another public name, to compare it with.", show_default=False)
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder", help="The folder that was trained, in Hugging Face layout. Else the one that is served from."
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
    served = [_look(name, state) for name in (model, *([other] if other else ()))]
    place = folder or next((where for each in served if (where := _folder(each)) is not None), None)
    reference = _reference(place, template, training, state, yes=yes)
    length = context_length or (reference.cutoff_len if reference is not None else None)
    certificates = _certificates(served, reference, [_expected(place, each, length) for each in served], tokens, state)
    _write(certificates, out or place)
    if as_json:
        typer.echo("[" + ",\n".join(report.as_json(each).rstrip() for each in certificates) + "]")
    else:
        for made in certificates:
            typer.echo(f"\n{report.heading(made)}\n{made.reference}\n")
            show(report.COLUMNS, report.rows(made))
    if any(each.failed for each in certificates):
        raise typer.Exit(REFUSED)


def _certificates(
    served: list[Observation], reference: Reference | None, expected: list[Any], tokens: int, state: Path | None
) -> list[Certificate]:
    """One for each, kept by the gateway; the first is held against the second, too."""
    from app.certificate import certify

    client = _client(state)
    seen = [
        certify.observe(each.model, reference, client, expected=wanted, max_tokens=tokens, report=_tell)
        for each, wanted in zip(served, expected, strict=True)
    ]
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    made = []
    for at, asked in enumerate(seen):
        against = seen[1] if at == 0 and len(seen) > 1 else None
        made.append(certify.judge(asked, reference, expected=expected[at], against=against, date=today))
        certify.keep(made[-1], client)
    return made


def _tell(text: str) -> None:
    typer.echo(text, err=True)


def _client(state: Path | None) -> Any:
    return lambda method, path, body: call(method, path, state, body=body, timeout_s=_TIMEOUT_S)


def _look(name: str, state: Path | None) -> Observation:
    """Which engine serves it, and from which file."""
    from app.certificate import certify

    _tell(f"{name}: making it ready …")
    return certify.look(name, _client(state))


def _folder(seen: Observation) -> Path | None:
    from app.certificate.expectation import folder_of

    return folder_of(seen.file)


def _expected(place: Path | None, seen: Observation, length: int | None) -> Any:
    from app.certificate.expectation import expectation
    from app.certificate.serving import Expectation

    return expectation(place, seen.file, length) if place is not None else Expectation(context_length=length)


def _reference(
    folder: Path | None, template: str | None, training: Path | None, state: Path | None, *, yes: bool
) -> Reference | None:
    from app.reference.reference import ReferenceProblem, reference

    if folder is None:
        if template is not None or training is not None:
            fail("The folder that was trained is not known here: name it with --folder.")
        warn("What it was trained on is not known: no folder is served from, and --folder names none.")
        return None
    with tool_errors_reported():
        try:
            return reference(folder, toolbox(state, yes=yes), template=template, training=training)
        except ReferenceProblem as exc:
            fail(sentence(exc))


def _write(certificates: list[Certificate], folder: Path | None) -> None:
    """As JSON and Markdown; a folder that cannot be written is only said."""
    from app.certificate import report
    from app.certificate.files import write_whole

    if folder is None:
        return
    for each in certificates:
        name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in each.model)
        try:
            for suffix, text in ((".json", report.as_json(each)), (".md", report.as_markdown(each))):
                path = folder / f"certificate-{name}{suffix}"
                write_whole(path, text)
                _tell(f"wrote {path}")
        except OSError as exc:
            warn(f"The certificate cannot be written into {folder}: {exc.strerror} (--out names another folder).")
            return
