"""One run from its beginning, or from where it was, to its last answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import msgspec

from app.comparison.judging.judge import Judgement, matters
from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question
from app.comparison.running.asks import latest, remaining, unmeasured
from app.comparison.running.controls import controls, drifted, refusals, share_an_engine, twins
from app.comparison.running.gateway_client import GatewayClient
from app.comparison.running.judge_run import JudgeRun
from app.comparison.running.line_file import LineFile
from app.comparison.running.looking import Comparable, Looked, prompt_digest
from app.comparison.running.run_folder import ANSWERS, JUDGEMENTS, RunFolder
from app.comparison.running.run_record import RunOrder, RunProblem, RunRecord
from app.comparison.running.runner import AnswerRun, RunProgress, ServingChanged


@dataclass(frozen=True, slots=True)
class RunWay:
    """How a run is done, whatever is asked in it. `url` and `key`: of the gateway. `force`: also where the models are
    not comparable.
    """

    url: str
    key: str | None
    concurrency: int
    force: bool
    progress: RunProgress
    now: Callable[[], float] = time.time


def begun(
    folder: RunFolder,
    order: RunOrder,
    looked: Looked,
    comparable: Comparable,
    questions: Sequence[Question],
    *,
    format: str,
    pair: str | None,
    force: bool,
    now: float,
) -> RunRecord:
    """The run of this folder, which goes on, or has just begun. RunProblem where the models are not what they were, or
    cannot be compared. Blocks.
    """
    if folder.is_run:
        record = folder.record()
        drift = drifted(record.served, looked.models)
        if drift is not None:
            raise ServingChanged(
                f"{drift}: the run in {folder.path} cannot go on; name a new folder by --out to begin anew"
            )
        record = reordered(record, order)
        folder.write(record)
        return record
    reasons = refusals(looked.models, comparable.why_not)
    if reasons and not force:
        raise RunProblem("\n".join([*reasons, "--force compares them nevertheless, and the report says so."]))
    record = RunRecord(
        id=folder.path.name,
        created=int(now),
        pair=pair,
        models=order.models,
        questions=order.count,
        format=format,
        order=order,
        served=looked.models,
        notes=(*reasons, *comparable.notes, *twins(looked.models), *judged_by_one_of_them(order)),
    )
    folder.begin(record, questions)
    return record


def reordered(record: RunRecord, order: RunOrder) -> RunRecord:
    """The run, whose answers are to be weighed as this order says; it runs again where more must be asked. Pure."""
    before, declared = record.order, record.declared or record.order.primary
    old = {*judged_by_one_of_them(before), *chosen_afterwards(before, declared)}
    notes = [each for each in record.notes if each not in old]
    again = record.state == "finished" and order.asks_more_than(before)
    return msgspec.structs.replace(
        record,
        order=order,
        declared=declared if declared != order.primary else None,
        notes=(*notes, *judged_by_one_of_them(order), *chosen_afterwards(order, declared)),
        state="running" if again else record.state,
        finished=None if again else record.finished,
    )


def chosen_afterwards(order: RunOrder, declared: str) -> tuple[str, ...]:
    """What is to be said of a primary measure that is not the one which the run began with."""
    if order.primary == declared:
        return ()
    return (
        f"The primary measure {order.primary} was chosen after the run had begun with {declared}: who tries several "
        "measures sees a difference in one of them sooner or later.",
    )


def judged_by_one_of_them(order: RunOrder) -> tuple[str, ...]:
    """What is to be said of a judge that is compared itself; nothing of another."""
    if order.judge not in order.models:
        return ()
    return (f"The judge {order.judge} is one of the compared models: models prefer their own answers.",)


async def finish_answers(
    folder: RunFolder, record: RunRecord, questions: Sequence[Question], way: RunWay, *, one_by_one: bool
) -> RunRecord:
    """Ask everything that is left, the judge last; returns the record of the finished run. RunProblem where the run
    cannot go on now; ServingChanged where it never can, which is written down.
    """
    order = record.order
    with ExitStack() as files:
        answers = files.enter_context(LineFile(folder.path / ANSWERS, ModelAnswer))
        client = GatewayClient(way.url, way.key, way.concurrency, waiting=way.progress.waiting)
        async with client:
            if not record.controls:
                record = await _with_controls(client, record, questions)
                folder.write(record)
            known = answers.read()
            runner = AnswerRun(
                client,
                order.sampling,
                {each.name: each.servings or _servings(known, each.name) for each in record.served},
                answers.append,
                likelihood=order.likelihood,
                concurrency=way.concurrency,
                progress=way.progress,
                only_openai={each.name for each in record.served if each.only_openai},
            )
            alone = one_by_one or share_an_engine(record.served)
            asks = remaining(questions, order.models, order.repeats, known, one_by_one=alone)
            way.progress.step(_asking(len(asks), questions, order))
            try:
                # One model's last question is answered before the next one's first: some engines mix them up.
                for part in [[each for each in asks if each.model == m] for m in order.models] if alone else [asks]:
                    await runner.run(part)
            except ServingChanged as exc:
                folder.write(msgspec.structs.replace(record, state="stopped", reason=str(exc), finished=int(way.now())))
                raise
            if order.likelihood:
                missing = unmeasured(questions, order.models, known)
                if missing:
                    way.progress.step(f"asking how likely the references of {len(missing)} answers are")
                    await runner.measure(missing)
            record = _with_outcome(record, runner)
            if order.judge is not None:
                await _judge(client, folder, order, questions, answers.read(), way)
    record = msgspec.structs.replace(record, state="finished", finished=int(way.now()))
    folder.write(record)
    return record


async def _with_controls(client: GatewayClient, record: RunRecord, questions: Sequence[Question]) -> RunRecord:
    served = [
        msgspec.structs.replace(each, prompt=await prompt_digest(client, each.name, questions[0]))
        for each in record.served
    ]
    lines = controls(served, record.order.sampling)
    return msgspec.structs.replace(record, served=tuple(served), controls=lines)


async def _judge(
    client: GatewayClient,
    folder: RunFolder,
    order: RunOrder,
    questions: Sequence[Question],
    answers: Iterable[ModelAnswer],
    way: RunWay,
) -> None:
    assert order.judge is not None
    with LineFile(folder.path / JUDGEMENTS, Judgement) as judgements:
        run = JudgeRun(
            client,
            order.judge,
            judgements.append,
            seed=order.sampling.seed,
            concurrency=way.concurrency,
            progress=way.progress,
        )
        known = [each for each in judgements.read() if each.judge == order.judge]
        left = matters(questions, order.models, latest(answers), known)
        way.progress.step(f"asking the judge {order.judge} about {len(left)} pairs of answers")
        await run.run(left)


def _with_outcome(record: RunRecord, runner: AnswerRun) -> RunRecord:
    """With what only the answers have told: servings that were not known before, and what could not be measured."""
    served = tuple(
        msgspec.structs.replace(each, servings=runner.servings.get(each.name, each.servings)) for each in record.served
    )
    silent = [
        f"How likely the reference answers are is not known of {model!r}: {why}"
        for model, why in runner.unlikely.items()
    ]
    notes = tuple(dict.fromkeys((*record.notes, *silent)))
    lines = controls(served, record.order.sampling)
    return msgspec.structs.replace(record, served=served, notes=notes, controls=lines)


def _servings(answers: Iterable[ModelAnswer], model: str) -> tuple[str, ...]:
    """What its answers so far were made from."""
    return tuple(sorted({each.serving for each in answers if each.model == model and each.serving is not None}))


def _asking(left: int, questions: Sequence[Question], order: RunOrder) -> str:
    rounds = order.repeats + 1
    whole = len(questions) * len(order.models) * rounds
    already = f" ({whole - left} are answered)" if left < whole else ""
    return f"asking {len(questions)} questions × {len(order.models)} models × {rounds}{already}"
