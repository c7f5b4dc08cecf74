"""The report of a run, from the files in its folder."""

from __future__ import annotations

import datetime

from app.comparison.analysis.analyse import analyse
from app.comparison.analysis.findings import Judging
from app.comparison.judging.agreement import judged
from app.comparison.judging.blind import BlindVote, counted
from app.comparison.judging.judge import Judgement
from app.comparison.model_answer import ModelAnswer
from app.comparison.report.build import build
from app.comparison.report.contents import ComparedModel, ComparisonReport, RunFacts
from app.comparison.running.asks import drawn_with, latest
from app.comparison.running.line_file import LineFile
from app.comparison.running.run_folder import ANSWERS, JUDGEMENTS, VOTES, RunFolder
from app.comparison.running.run_record import RunRecord, SeenModel


def made_report(folder: RunFolder, record: RunRecord) -> ComparisonReport:
    """What came out of a run, as far as it has come. Blocks: it draws thousands of samples."""
    questions = folder.questions()
    answers = list(latest(LineFile(folder.path / ANSWERS, ModelAnswer).read()).values())
    order = record.order
    findings = analyse(
        questions,
        answers,
        models=order.models,
        primary=order.primary,
        seed=order.sampling.seed,
        judging=_judging(folder, record),
    )
    return build(_facts(folder, record), findings, questions, answers)


def _judging(folder: RunFolder, record: RunRecord) -> tuple[Judging, ...]:
    if record.order.judge is None:
        return ()
    lines = LineFile(folder.path / JUDGEMENTS, Judgement).read()
    said = [each for each in lines if each.judge == record.order.judge]
    return judged(record.order.judge, record.order.models, said)


def _facts(folder: RunFolder, record: RunRecord) -> RunFacts:
    order = record.order
    return RunFacts(
        id=record.id,
        date=datetime.datetime.fromtimestamp(record.created, tz=datetime.UTC).isoformat(),
        models=tuple(_model(each) for each in record.served),
        questions_file=order.file,
        questions_format=record.format,
        questions=order.count,
        repeats=order.repeats,
        sampling={name: value for name, value in drawn_with(order.sampling).items() if name != "seed"},
        seed=order.sampling.seed,
        pair=record.pair,
        controls=record.controls,
        notes=(*record.notes, *_votes(folder, record)),
        is_whole=record.state == "finished",
    )


def _model(seen: SeenModel) -> ComparedModel:
    engine = f"{seen.kind} {seen.version}" if seen.version else seen.kind
    return ComparedModel(seen.name, " or ".join(seen.servings) or None, engine or None, seen.quantization)


def _votes(folder: RunFolder, record: RunRecord) -> tuple[str, ...]:
    """What a blind test has come to so far."""
    votes = LineFile(folder.path / VOTES, BlindVote).read()
    if not votes:
        return ()
    standings = counted(votes, record.order.models)
    told = "; ".join(
        f"{each.name}: {each.wins} won, {each.ties} tied, {each.losses} lost "
        f"(strength {each.strength:+.2f}, from {each.interval.low:+.2f} to {each.interval.high:+.2f})"
        for each in standings
    )
    return (f"Blind test, {len({vote.question for vote in votes})} votes: {told}.",)
