"""A blind test in the terminal: answers without names, and a vote on each question."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from app.cli.terminal_text import terminal_text

if TYPE_CHECKING:
    from app.comparison.judging.blind import BlindQuestion
    from app.comparison.running.run_folder import RunFolder
    from app.comparison.running.run_record import RunRecord

_HELP = "t: equally good; b: none is good; s: skip this question; q: stop here"


def vote(folder: RunFolder, record: RunRecord) -> bool:
    """Ask for a vote on every question that has none; each is written down at once. Returns whether all questions were
    shown; until then names and figures stay hidden.
    """
    from app.comparison.judging.blind import BlindVote, blind_questions
    from app.comparison.model_answer import ModelAnswer
    from app.comparison.running.asks import latest
    from app.comparison.running.line_file import LineFile
    from app.comparison.running.run_folder import ANSWERS, VOTES

    answers = latest(LineFile(folder.path / ANSWERS, ModelAnswer).read())
    with LineFile(folder.path / VOTES, BlindVote) as votes:
        left = blind_questions(
            folder.questions(), record.order.models, answers, votes.read(), record.order.sampling.seed
        )
        for at, shown in enumerate(left, start=1):
            _show(shown, at, len(left))
            winner = _winner(shown)
            if winner is None:
                typer.echo(
                    "Stopped. The same command goes on with the votes; nothing is revealed until then.", err=True
                )
                return False
            if winner:
                votes.append(BlindVote(shown.question.id, tuple(each.model for each in shown.answers), winner))
    return True


def _show(shown: BlindQuestion, at: int, count: int) -> None:
    typer.secho(f"\nQuestion {at} of {count}", bold=True)
    typer.echo(terminal_text(shown.question.text))
    for number, answer in enumerate(shown.answers, start=1):
        typer.secho(f"\nAnswer {number}", bold=True)
        typer.echo(terminal_text(answer.text.strip()) or "(it is empty)")


def _winner(shown: BlindQuestion) -> str | None:
    """Who won, by name; "" where the question is skipped, None where the voter stops."""
    from app.comparison.judging.blind import ALL_BAD, TIE

    numbers = [str(number) for number in range(1, len(shown.answers) + 1)]
    while True:
        try:
            said = typer.prompt(f"\nWhich is better ({', '.join(numbers)}; {_HELP})", err=True).strip().lower()
        except typer.Abort:
            return None
        if said in numbers:
            return shown.answers[int(said) - 1].model
        if said in ("t", "b", "s", "q"):
            return {"t": TIE, "b": ALL_BAD, "s": "", "q": None}[said]
        typer.echo(f"{said!r} is none of {', '.join(numbers)}, t, b, s, q.", err=True)
