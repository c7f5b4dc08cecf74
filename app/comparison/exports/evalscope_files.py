"""EvalScope's `general_qa` (open questions) and `general_mcq` (choices; true and false are two options)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.comparison.exports.portable import NotPortable, lines, one_text
from app.comparison.question import LETTERS, Question, truth_words

MOST_OPTIONS: Final = 10  # general_mcq reads A to J
MOST_TOKENS: Final = 512  # of an answer; EvalScope itself would let a model go on as long as it likes


def record(question: Question) -> tuple[str, dict[str, Any]]:
    """The file that a question goes into, and its record there. Raises NotPortable."""
    if question.form == "open":
        one_text(question)  # general_qa's messages are texts, too
        return "open", _members(question, messages=list(question.messages), response=question.answer or "")
    if question.answer is None:
        raise NotPortable("it has no answer, which general_mcq needs")
    options, answer = question.options, question.answer
    if question.form == "true_false":
        options = truth_words(question)
        answer = "A" if answer == "true" else "B"
    if len(options) > MOST_OPTIONS:
        raise NotPortable(f"it has {len(options)} options, and general_mcq reads {MOST_OPTIONS}")
    several = len(answer) > 1
    named = dict(zip(LETTERS, options, strict=False))
    members = _members(question, question=one_text(question), **named, answer=list(answer) if several else answer)
    return "multiple" if several else "choice", members


def _members(of: Question, /, **rest: Any) -> dict[str, Any]:
    category = {"category": of.category} if of.category else {}
    return {"id": of.id, **category, **rest}


def files(name: str, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, bytes]:
    """The files by their paths, `records` by the file that `record` named."""
    paths = {
        "open": f"qa/{name}.jsonl",
        "choice": f"mcq/{name}_val.jsonl",
        "multiple": f"mcq/{name}_multiple_val.jsonl",
    }
    written = {paths[kind]: lines(those) for kind, those in records.items() if those}
    return {**written, "README.md": _readme(name, [kind for kind in paths if records.get(kind)]).encode()}


_TASKS: Final = {
    "open": ("general_qa", '{{"general_qa": {{"local_path": "qa", "subset_list": ["{name}"]}}}}'),
    "choice": ("general_mcq", '{{"general_mcq": {{"local_path": "mcq", "subset_list": ["{name}"]}}}}'),
    "multiple": (
        "general_mcq",
        '{{"general_mcq": {{"local_path": "mcq", "subset_list": ["{name}_multiple"],'
        ' "extra_params": {{"multiple_correct": true}}}}}}',
    ),
}


def _readme(name: str, kinds: Sequence[str]) -> str:
    commands = "\n\n".join(
        "evalscope eval --eval-type openai_api --api-url http://127.0.0.1:8000/v1 --api-key KEY --model MODEL \\\n"
        f'  --generation-config \'{{"temperature": 0, "max_tokens": {MOST_TOKENS}}}\' \\\n'
        f"  --datasets {_TASKS[kind][0]} \\\n  --dataset-args '{_TASKS[kind][1].format(name=name)}'"
        for kind in kinds
    )
    return f"For EvalScope, in this folder; MODEL is a public name of the gateway.\n\n```bash\n{commands}\n```\n"
