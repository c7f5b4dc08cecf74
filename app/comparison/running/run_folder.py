"""The folder of one run: what was ordered, the questions, and each answer as it came.

    run.json          what was ordered of whom, and how far it is
    questions.jsonl   the questions as they are asked
    answers.jsonl     a line for each answer, in the order in which they came
    judgements.jsonl  a line for each judgement, where there is a judge
    votes.jsonl       a line for each vote of a blind test
    report.*          what came out, once it is done

All are their owner's alone, also in a folder that others may read. A folder without `run.json` is what a command left
that was killed at its start.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import msgspec

from app.comparison.question import Question
from app.comparison.running.line_file import PRIVATE, LineFile
from app.comparison.running.run_record import RunOrder, RunProblem, RunRecord, encoded
from app.whole_file import write_whole

FOLDER: Final = "comparisons"  # of the state folder
RUN: Final = "run.json"
QUESTIONS: Final = "questions.jsonl"
ANSWERS: Final = "answers.jsonl"
JUDGEMENTS: Final = "judgements.jsonl"
VOTES: Final = "votes.jsonl"
_LOCK: Final = "lock"
_LABEL_LETTERS: Final = 40
_SAME_SECOND: Final = 1000  # runs that can begin within one second


class RunFolder:
    """One run's folder. All methods block; RunProblem where the disk does not do it or a file is not ours."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"<RunFolder {self.path}>"

    @property
    def is_run(self) -> bool:
        """Whether a run has begun in it."""
        return (self.path / RUN).is_file()

    def record(self) -> RunRecord:
        """What is known of the run."""
        path = self.path / RUN
        try:
            return msgspec.json.decode(path.read_bytes(), type=RunRecord)
        except OSError as exc:
            raise RunProblem(f"{path} cannot be read: {exc.strerror}; name another folder with --out") from exc
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise RunProblem(f"{path} is not that of a comparison ({exc}); name another folder with --out") from exc

    def write(self, record: RunRecord) -> None:
        """Write down what is known of the run now."""
        with _told(self.path):
            write_whole(self.path / RUN, encoded(record), mode=PRIVATE)

    def begin(self, record: RunRecord, questions: Sequence[Question]) -> None:
        """Make the folder a run's: only once all else is there it gets its `run.json`."""
        with _told(self.path):
            for name in (ANSWERS, JUDGEMENTS, VOTES):
                (self.path / name).unlink(missing_ok=True)
            lines = b"".join(msgspec.json.encode(each) + b"\n" for each in questions)
            write_whole(self.path / QUESTIONS, lines, mode=PRIVATE)
        self.write(record)

    def questions(self) -> list[Question]:
        """The questions as they are asked."""
        return LineFile(self.path / QUESTIONS, Question).read()

    def write_file(self, name: str, text: str) -> Path:
        """Write a file of the result, whole or not at all; returns its path."""
        with _told(self.path):
            write_whole(self.path / name, text.encode(), mode=PRIVATE)
        return self.path / name

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else works in the folder meanwhile. It is made where it is not there, and taken away again where no
        run has begun in it.
        """
        was_there = self.path.exists()
        with _told(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunProblem(
                    f"another command works on the comparison in {self.path} right now; wait for it, or end it"
                ) from None
            yield
        finally:
            if not was_there and not self.is_run:
                shutil.rmtree(self.path, ignore_errors=True)
            os.close(handle)


def named(out: Path, order: RunOrder) -> RunFolder:
    """The folder that was named for this order. RunProblem where it holds another run's answers, or something else."""
    folder = RunFolder(out)
    if folder.is_run:
        other = folder.record().order
        if other.answered_by != order.answered_by:
            raise RunProblem(
                f"{out} holds another comparison ({_difference(other, order)}); name a new folder by --out"
            )
        return folder
    try:
        foreign = [each.name for each in out.iterdir() if not _is_ours(each.name)] if out.exists() else []
    except OSError as exc:
        raise RunProblem(f"{out} cannot be used as a folder: {exc.strerror}; name another with --out") from exc
    if foreign:
        raise RunProblem(f"{out} holds other files ({min(foreign)}, …); name a new or an empty folder with --out")
    return folder


def chosen(comparisons: Path, order: RunOrder, now: datetime.datetime) -> RunFolder:
    """The latest run with this order's answers that is not done, or whose answers are to be weighed otherwise; else a
    new folder. What commands left that were killed at their start is removed.
    """
    with _told(comparisons):
        comparisons.mkdir(mode=0o700, parents=True, exist_ok=True)
        folders = [RunFolder(each) for each in sorted(comparisons.iterdir(), reverse=True) if each.is_dir()]
    for folder in folders:
        if not folder.is_run:
            _remove_leftover(folder)
            continue
        try:
            record = folder.record()
        except RunProblem:
            continue  # of another version, or spoilt: it is not ours to go on with
        is_new = record.order.weighed_by != order.weighed_by
        goes_on = record.state == "running" or (record.state == "finished" and is_new)
        if goes_on and record.order.answered_by == order.answered_by:
            return folder
    for number in range(_SAME_SECOND):
        path = comparisons / run_id(order.models, now, number)
        if not path.exists():
            return RunFolder(path)
    raise RunProblem(f"{comparisons} has no room for another run; name a folder with --out")


def run_id(models: Sequence[str], now: datetime.datetime, number: int = 0) -> str:
    """A name that sorts by time and says what is compared: letters, digits, `-`, `_` and `.` only. Pure."""
    label = "-vs-".join(models)
    plain = "".join(each if each.isascii() and (each.isalnum() or each in "-_.") else "-" for each in label)
    suffix = f"-{number + 1}" if number else ""
    return f"{now:%Y%m%d-%H%M%S}-{plain[:_LABEL_LETTERS].strip('-.')}{suffix}"


def _is_ours(name: str) -> bool:
    """Whether a command may leave a file of this name that is killed before its run has begun."""
    return name in (_LOCK, QUESTIONS) or any(fnmatchcase(name, f".{each}.*.new") for each in (QUESTIONS, RUN))


def _remove_leftover(folder: RunFolder) -> None:
    """Remove what a command left that was killed before its run had begun; other folders are not ours to remove."""
    try:
        if all(_is_ours(each.name) for each in folder.path.iterdir()):
            with folder.held():
                shutil.rmtree(folder.path)
    except (OSError, RunProblem):
        return


def _difference(other: RunOrder, order: RunOrder) -> str:
    names = [name for name in ("models", "sampling", "repeats") if getattr(other, name) != getattr(order, name)]
    name = next(iter(names), "digest")
    if name == "digest":
        return f"the questions of {other.file} have changed since"
    theirs, ours = getattr(other, name), getattr(order, name)
    if name == "sampling":
        parts = msgspec.structs.fields(type(other.sampling))
        name = next(each.name for each in parts if getattr(theirs, each.name) != getattr(ours, each.name))
        theirs, ours = getattr(theirs, name), getattr(ours, name)
    return f"{name}: {_told_value(theirs)} there, {_told_value(ours)} now"


def _told_value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """An OSError inside becomes a sentence."""
    try:
        yield
    except OSError as exc:
        raise RunProblem(
            f"{path} cannot be written: {exc.strerror}; mend that, and the same command goes on where it was"
        ) from exc
