"""`modelport modelfile`: a Modelfile for a tuned model, or what is wrong with one that exists."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import REFUSED, JsonOption, StateOption, fail, print_json, refuse_missing, sentence, warn
from app.cli.toolbox import YesOption

if TYPE_CHECKING:
    from app.registration.modelfile_check import Flaw, KnownModel


def modelfile(
    model: Annotated[Path, typer.Argument(metavar="DIR|GGUF", help="A folder in Hugging Face layout, or a GGUF file.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write it; default: print it.")] = None,
    check: Annotated[Path | None, typer.Option("--check", help="Look at this Modelfile instead.")] = None,
    template: Annotated[
        str | None,
        typer.Option(help="LLaMA-Factory's name of the template that it was trained with.", show_default=False),
    ] = None,
    training: Annotated[
        Path | None, typer.Option(help="LLaMA-Factory's YAML file that it was trained with.", show_default=False)
    ] = None,
    num_ctx: Annotated[
        int | None, typer.Option(min=16, help="Tokens of context; default: the model's, at most 8192.")
    ] = None,
    daemon: Annotated[
        str | None, typer.Option(help="The daemon's version; default: that of the one at OLLAMA_HOST, else a new one.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a file that exists.")] = False,
    yes: YesOption = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a Modelfile (weights, template, system prompt, stops, context, sampling), or check one: exit code 1 when it
    changes answers.
    """
    from app.cli.modelfile_facts import facts_of, origin, weights_name
    from app.cli.registering import told_in_one_sentence
    from app.registration.modelfile_check import written

    if template is not None and training is not None:
        fail("Give --template or --training, not both: the training file names its template.", 2)
    path = model.expanduser().absolute()
    folder = path if path.is_dir() else path.parent
    target = (check or out or folder / "Modelfile").expanduser().absolute()
    if out is not None and not target.parent.is_dir():
        fail(f"'{target.parent}' is not a folder here: make it.")
    refuse_missing(training)
    version = daemon or _version_here()
    with told_in_one_sentence():
        known = facts_of(path, target.parent, template=template, training=training, state=state, yes=yes)
        if check is not None:
            _checked(target, known, num_ctx, version, as_json=as_json)
            return
        weights = weights_name(path, target.parent)
        try:
            text = written(
                known,
                weights,
                num_ctx=num_ctx,
                version=version,
                renders_jinja=_is_new(version),
            )
        except ValueError as exc:
            fail(sentence(exc))
        if (note := origin(path, weights, target.parent)) is not None:
            warn(f"Note: {note}.")
    if out is None:
        typer.echo(text, nl=False)
        return
    _write(target, text, out, replace=replace)


def _write(target: Path, text: str, out: Path, *, replace: bool) -> None:
    """Write the file; `out`: what it was called on the command line."""
    from app.whole_file import write_whole

    if target.exists() and not replace:
        fail(f"{out} exists: --check looks at it, --replace writes over it.")
    try:
        write_whole(target, text.encode())
    except OSError as exc:
        fail(f"{out} cannot be written: {exc.strerror}.")
    typer.echo(f"Wrote {out}. Next: `ollama create NAME -f {out}`.")


def _checked(file: Path, known: KnownModel, num_ctx: int | None, version: str, *, as_json: bool) -> None:
    from app.registration.modelfile import ModelfileError, parse
    from app.registration.modelfile_check import Flaw, check

    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        fail(f"{file} cannot be read: {getattr(exc, 'strerror', None) or 'it is not UTF-8 text'}.")
    try:
        findings = check(parse(text), known, num_ctx=num_ctx, renders_jinja=_is_new(version))
    except ModelfileError as exc:
        findings = [Flaw("error", exc.line, str(exc).partition(": ")[2])]
    _report(file, findings, as_json=as_json)


def _report(file: Path, findings: list[Flaw], *, as_json: bool) -> None:
    errors = [each for each in findings if each.level == "error"]
    if as_json:
        listed = [{"level": each.level, "line": each.line, "text": each.text} for each in findings]
        print_json({"file": str(file), "findings": listed})
    elif not findings:
        typer.echo(f"{file}: all right")
    for each in findings if not as_json else ():
        if each.level == "error":
            typer.secho(str(each), fg="red")
        else:
            warn(str(each))
    if errors:
        raise typer.Exit(REFUSED)


def _is_new(version: str) -> bool:
    from app.registration.daemon import renders_jinja

    return not version or renders_jinja(version)


def _version_here() -> str:
    """The version of the daemon at OLLAMA_HOST; empty where none answers."""
    import httpx

    from app.config.model import ollama_url

    try:
        reply = httpx.get(f"{ollama_url(os.environ.get('OLLAMA_HOST'))}/api/version", timeout=1.0, trust_env=False)
        return str(reply.json()["version"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return ""
