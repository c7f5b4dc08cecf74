"""Questions, written into a folder for another program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from app.comparison.exports import evalscope_files, lm_eval_files
from app.comparison.exports.portable import NotPortable, safe_name
from app.comparison.question import Question
from app.whole_file import write_whole


class _Program(NamedTuple):
    record: Callable[[Question], tuple[str, dict[str, Any]]]
    files: Callable[[str, Mapping[str, Sequence[Mapping[str, Any]]]], dict[str, bytes]]


EXPORTS: Final[Mapping[str, _Program]] = MappingProxyType(
    {
        "evalscope": _Program(evalscope_files.record, evalscope_files.files),
        "lm-eval": _Program(lm_eval_files.record, lm_eval_files.files),
    }
)


@dataclass(frozen=True, slots=True)
class Export:
    """The files of an export by their paths within its folder, and how many `questions` are in them. `left_out`: those
    that the other program's format cannot say, the first one for the reason in `first_left_out`.
    """

    files: Mapping[str, bytes]
    questions: int
    left_out: int = 0
    first_left_out: str = ""


def exported(questions: Sequence[Question], program: str, name: str) -> Export:
    """Questions in the format of `program`, one of EXPORTS. `name`: what files and tasks are to be called; other signs
    than letters and digits become `_`.
    """
    record, files = EXPORTS[program]
    records: dict[str, list[Mapping[str, Any]]] = {}
    left_out: list[str] = []
    for question in questions:
        try:
            kind, members = record(question)
        except NotPortable as exc:
            left_out.append(f"question {question.id}: {exc}")
        else:
            records.setdefault(kind, []).append(members)
    written = files(safe_name(name), records) if records else {}
    count = len(questions) - len(left_out)
    return Export(written, count, len(left_out), left_out[0] if left_out else "")


def write_export(export: Export, folder: Path) -> None:
    """The export's files in `folder`, which is made where it is missing. OSError where that is not possible. Blocks."""
    for path, data in export.files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, data, mode=0o600)
