"""`modelport compare`: a file of questions through several models of the running gateway, with statistics."""

from __future__ import annotations

import datetime
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import completion
from app.cli.admin_client import call, socket_of
from app.cli.compare_blind import vote
from app.cli.options import BAD_CONFIG, STOPPED, JsonOption, StateOption, fail, sentence, warn
from app.cli.tables import number_of, show
from app.cli.terminal_text import terminal_line

if TYPE_CHECKING:
    from app.comparison.formats.files import QuestionFile
    from app.comparison.question import Question
    from app.comparison.running.compare_run import RunWay
    from app.comparison.running.looking import Comparable
    from app.comparison.running.run_folder import RunFolder
    from app.comparison.running.run_record import RunOrder, RunRecord

_ADMIN_S = 1800.0  # engines may have to be started first
_OPENAI_ONLY = frozenset({"remote"})  # kinds of engines that may refuse what OpenAI does not have


class Language(StrEnum):
    """What a report is written in."""

    ENGLISH = "en"
    CHINESE = "zh"


class Exported(StrEnum):
    """Whose files the questions are written for."""

    EVALSCOPE = "evalscope"
    LM_EVAL = "lm-eval"


NamesArgument = Annotated[
    list[str],
    typer.Argument(
        help="A pair of the configuration, or public names: the first is what the others are held against.",
        autocompletion=completion.models_and_pairs,
    ),
]
QuestionsOption = Annotated[Path, typer.Option("--questions", "-q", help="The file of questions.")]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", help="The file's format, where its content does not tell it.", show_default=False),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The run's folder. Else one below the state folder.", show_default=False),
]
PrimaryOption = Annotated[
    str | None,
    typer.Option(
        "--primary",
        help="The one measure that decides. Else `choice` for questions with options, `contains` for short reference "
        "answers, `chrf` for long ones.",
        show_default=False,
    ),
]
RepeatsOption = Annotated[
    int, typer.Option("--repeats", min=0, help="How often everything is asked again, for the noise floor.")
]
JudgeOption = Annotated[
    str | None, typer.Option("--judge", help="A public name that judges each pair of answers.", show_default=False)
]
TemperatureOption = Annotated[float, typer.Option("--temperature", min=0, max=2, help="What answers are drawn with.")]
TokensOption = Annotated[int, typer.Option("--max-tokens", min=1, help="Tokens of each answer at most.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the answers, and of all that is drawn.")]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Only so many questions, evenly from all categories.", show_default=False),
]
ConcurrencyOption = Annotated[
    int, typer.Option("--concurrency", min=1, max=256, help="So many questions are under way at once.")
]
LikelihoodOption = Annotated[
    bool,
    typer.Option(
        "--likelihood/--no-likelihood", help="Measure how likely each model finds the reference answers, where it can."
    ),
]
BlindOption = Annotated[bool, typer.Option("--blind", help="Show you the answers without names, and count your votes.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Also where the models are not comparable.")]
ExportOption = Annotated[
    Exported | None,
    typer.Option("--export", help="Write the questions for another program as well.", show_default=False),
]
LangOption = Annotated[Language, typer.Option("--lang", help="The report's language.")]


def compare(
    names: NamesArgument,
    questions: QuestionsOption,
    format_: FormatOption = None,
    out: OutOption = None,
    primary: PrimaryOption = None,
    repeats: RepeatsOption = 1,
    judge: JudgeOption = None,
    blind: BlindOption = False,
    temperature: TemperatureOption = 0.0,
    max_tokens: TokensOption = 512,
    seed: SeedOption = 0,
    limit: LimitOption = None,
    concurrency: ConcurrencyOption = 4,
    likelihood: LikelihoodOption = True,
    export: ExportOption = None,
    force: ForceOption = False,
    lang: LangOption = Language.ENGLISH,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask several models the same questions, and say what is different, and how sure that is.

    Every answer is written down as it comes: the same command goes on where an earlier one was ended. The report says
    more than chance only where the difference is larger than each model's from itself.
    """
    from app.comparison.analysis.primary import default_primary
    from app.comparison.running.asks import limited, questions_digest
    from app.comparison.running.run_record import DrawnWith, RunOrder, RunProblem

    file = _read(questions, format_)
    asked = limited(file.questions, limit, seed)
    if file.skipped:
        are = "is" if file.skipped == 1 else "are"
        warn(f"{number_of(file.skipped, 'record')} of {questions} {are} left out: {file.first_skipped}")
    models, pair = _models(names, state)
    order = RunOrder(
        models=models,
        file=questions.name,
        digest=questions_digest(asked),
        count=len(asked),
        primary=_primary(primary or default_primary(asked)),
        sampling=DrawnWith(temperature=temperature, max_tokens=max_tokens, seed=seed),
        repeats=repeats,
        likelihood=likelihood,
        judge=judge,
    )
    try:
        folder = _folder(out, order, state)
        with folder.held():
            record = _run(folder, order, asked, file.format, pair, state, concurrency=concurrency, force=force)
            if export is not None:
                _export(export, folder, file.name, asked)
            if not blind or vote(folder, record):
                _report(folder, record, lang, as_json=as_json)
    except RunProblem as exc:
        fail(sentence(exc).splitlines())
    except KeyboardInterrupt:
        fail("Stopped. The same command goes on where it was.", STOPPED)


def _read(path: Path, format_: str | None) -> QuestionFile:
    from app.comparison.formats.files import QuestionFileError, read_questions

    try:
        return read_questions(path, format=format_)
    except QuestionFileError as exc:
        fail(sentence(exc), BAD_CONFIG)


def _models(names: list[str], state: Path | None) -> tuple[tuple[str, ...], str | None]:
    """The public names to compare, and the pair that they are."""
    told = call("GET", "/admin/models", state)
    canonical = {
        str(name): str(each["name"]) for each in told["models"] for name in (each["name"], *(each.get("aliases") or ()))
    }
    pairs = told.get("pairs") or {}
    pair = names[0] if len(names) == 1 and names[0] in pairs else None
    if len(names) == 1 and pair is None:
        known = f"(pairs: {', '.join(sorted(pairs))})" if pairs else "(there are none under `pairs:`)"
        fail(f"{names[0]!r} is not a pair of the configuration {known}: name one, or two public names.", BAD_CONFIG)
    members = list(pairs[pair].values()) if pair is not None else names
    chosen = tuple(canonical.get(each, each) for each in members)
    if len(set(chosen)) < len(chosen):
        twice = next(each for each in chosen if chosen.count(each) > 1)
        fail(
            f"{twice!r} is named twice: how far a model is from itself is measured of each anyway (--repeats).",
            BAD_CONFIG,
        )
    return chosen, pair


def _primary(name: str) -> str:
    from app.comparison.scores.measures import MEASURES

    if name not in MEASURES:
        fail(f"{name!r} is not a measure (there are: {', '.join(MEASURES)}).", BAD_CONFIG)
    return name


def _folder(out: Path | None, order: RunOrder, state: Path | None) -> RunFolder:
    from app.comparison.running import run_folder

    if out is not None:
        return run_folder.named(out.expanduser().absolute(), order)
    comparisons = socket_of(state).parent / run_folder.FOLDER
    return run_folder.chosen(comparisons, order, datetime.datetime.now(tz=datetime.UTC))


def _run(
    folder: RunFolder,
    order: RunOrder,
    questions: list[Question],
    format_: str,
    pair: str | None,
    state: Path | None,
    *,
    concurrency: int,
    force: bool,
) -> RunRecord:
    """Have everything asked that has no answer yet."""
    import asyncio

    from app.cli.compare_progress import ShownRun
    from app.comparison.running.compare_run import RunWay, begun, finish_answers, reordered
    from app.comparison.running.looking import Comparable, look_at

    if folder.is_run and (record := folder.record()).state == "finished" and not order.asks_more_than(record.order):
        record = reordered(record, order)
        folder.write(record)
        typer.echo(f"Everything is answered already in {folder.path}: the report is written anew.", err=True)
        return record
    with ShownRun() as progress:
        judge = (order.judge,) if order.judge is not None else ()
        known = _client(state)
        looked = look_at(order.models, known, also=judge, remote_kinds=_OPENAI_ONLY, report=progress.step)
        url = str(call("GET", "/admin/status", state)["address"])
        way = RunWay(url, _key(), concurrency, force, progress)
        if order.primary == "logprob":
            asyncio.run(_refuse_untold(way, order, questions))
        answer = Comparable() if folder.is_run else asyncio.run(_comparable(way, order, questions))
        record = begun(folder, order, looked, answer, questions, format=format_, pair=pair, force=force, now=way.now())
        typer.echo(f"The run's folder: {folder.path}", err=True)
        return asyncio.run(finish_answers(folder, record, questions, way, one_by_one=not looked.fit_together))


async def _comparable(way: RunWay, order: RunOrder, questions: list[Question]) -> Comparable:
    from app.comparison.running.gateway_client import GatewayClient
    from app.comparison.running.looking import comparable

    async with GatewayClient(way.url, way.key, 1) as client:
        return await comparable(client, order, questions)


async def _refuse_untold(way: RunWay, order: RunOrder, questions: list[Question]) -> None:
    from app.comparison.running.gateway_client import GatewayClient
    from app.comparison.running.likelihood import refuse_untold

    async with GatewayClient(way.url, way.key, 1, waiting=way.progress.waiting) as client:
        await refuse_untold(client, order.models, questions, is_measured=order.likelihood)


def _key() -> str | None:
    """The first of the keys in API_KEY, for a gateway that asks for one."""
    from app.cli.options import config_errors_reported
    from app.config.settings import Settings

    with config_errors_reported():
        return next(iter(Settings.from_env(os.environ).keys()), None)


def _client(state: Path | None) -> Any:
    return lambda method, path, body: call(method, path, state, body=body, timeout_s=_ADMIN_S)


def _report(folder: RunFolder, record: RunRecord, lang: Language, *, as_json: bool) -> None:
    """Write the report into the run's folder, and say what came out."""
    from app.comparison.report.html.page import as_html
    from app.comparison.report.markdown import as_markdown
    from app.comparison.report.stored import as_json as told
    from app.comparison.report.tables import CONTRAST_COLUMNS, contrast_cells, contrast_name, units
    from app.comparison.report.words import WORDS
    from app.comparison.running.reporting import made_report

    report = made_report(folder, record)
    text = told(report)
    folder.write_file("report.json", text)
    folder.write_file("report.md", as_markdown(report, lang.value))
    shown = folder.write_file("report.html", as_html(report, lang.value))
    if as_json:
        typer.echo(text, nl=False)
        return
    words, unit = WORDS[lang.value], units(report)[report.findings.primary]
    for line in report.headline[lang.value]:
        typer.echo(terminal_line(line))
    typer.echo()
    several = len(record.models) > 2
    show(
        tuple(words[each] for each in ("category", *CONTRAST_COLUMNS)),
        [
            contrast_cells(each, contrast_name(each, lang.value, several=several), unit, lang.value)
            for each in (*report.findings.overall, *report.findings.categories)
        ],
    )
    typer.echo(f"\n{shown}")


def _export(export: Exported, folder: RunFolder, name: str, questions: list[Question]) -> None:
    """Write the questions for another program into a folder of the run's."""
    from app.comparison.exports.export import exported, write_export
    from app.comparison.running.run_record import RunProblem

    written = exported(questions, export.value, Path(name).stem)
    place = folder.path / export.value
    try:
        write_export(written, place)
    except OSError as exc:
        raise RunProblem(f"{place} cannot be written: {exc.strerror}") from exc
    if written.left_out:
        are = "is" if written.left_out == 1 else "are"
        warn(f"{number_of(written.left_out, 'question')} {are} not in {place}: {written.first_left_out}")
    typer.echo(f"{number_of(written.questions, 'question')} for {export.value}: {place}", err=True)
