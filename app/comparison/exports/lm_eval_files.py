"""Tasks of EleutherAI's lm-eval: a YAML file and a file of questions for each form.

One right option, or true and false, is `multiple_choice`: the log-probabilities of the letters decide, so it runs on
`local-completions`. Several right options and open questions are `generate_until`, which runs on both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.comparison.exports.portable import NotPortable, lines, one_text
from app.comparison.question import LETTERS, Question, is_chinese, prompt, truth_words

MOST_TOKENS: Final = 512  # of a written answer


def record(question: Question) -> tuple[str, dict[str, Any]]:
    """The task that a question goes into, and its record there. Raises NotPortable."""
    if question.answer is None:
        raise NotPortable("it has no answer to hold an output against")
    text = one_text(Question(question.id, tuple(prompt(question))))
    category = {"category": question.category} if question.category else {}
    head = {"id": question.id, **category, "prompt": text}
    if question.form == "open":
        return "open", {**head, "target": question.answer}
    head["prompt"] = f"{text}\n{'答案：' if is_chinese(question.text) else 'Answer:'}"
    if question.form == "true_false":
        return "choice", {**head, "choices": list(truth_words(question)), "gold": int(question.answer != "true")}
    if len(question.answer) > 1:
        return "multiple", {**head, "target": question.answer}
    choices = list(LETTERS[: len(question.options)])
    return "choice", {**head, "choices": choices, "gold": LETTERS.index(question.answer)}


def files(name: str, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, bytes]:
    """The files by their paths, `records` by the task that `record` named."""
    written: dict[str, bytes] = {}
    for kind, those in records.items():
        if those:
            written[f"{name}_{kind}.jsonl"] = lines(those)
            written[f"{name}_{kind}.yaml"] = f"{_HEAD}{_TASKS[kind]}".format(name=name, kind=kind).encode()
    return {**written, "README.md": _README.format(name=name).encode()}


_HEAD: Final = """\
task: {name}_{kind}
tag: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {name}_{kind}.jsonl
test_split: test
num_fewshot: 0
doc_to_text: "{{{{prompt}}}}"
"""
_WRITTEN: Final = f"""\
output_type: generate_until
doc_to_target: "{{{{{{{{target}}}}}}}}"
generation_kwargs:
  until: []
  do_sample: false
  temperature: 0
  max_gen_toks: {MOST_TOKENS}
"""
_EXACT: Final = """\
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: true
"""
_TASKS: Final = {
    "choice": """\
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
""",
    "multiple": f"""\
{_WRITTEN}filter_list:
  - name: letters
    filter:
      - function: regex
        regex_pattern: "(?<![A-Za-z])[A-Z]+(?![A-Za-z])(?:[ ,、和]+(?:and )?[A-Z]+(?![A-Za-z]))*"
      - function: remove_whitespace
      - function: take_first
metric_list:
{_EXACT}    regexes_to_ignore:
      - "[ ,、和]"
      - "and"
metadata:
  version: 1.0
""",
    "open": f"""\
{_WRITTEN}metric_list:
{_EXACT}  - metric: chrf
    aggregation: chrf
    higher_is_better: true
metadata:
  version: 1.0
""",
}
_README: Final = """\
For lm-eval, in this folder. MODEL is a public name of the gateway, KEY one of its keys, TOKENIZER the folder of the
model that was tuned (or its name on the hub). `{name}` is all tasks of this folder. Options are chosen by
log-probability, which needs `local-completions`.

```bash
OPENAI_API_KEY=KEY lm_eval run --include_path . --tasks {name} --model local-completions \\
  --model_args model=MODEL,base_url=http://127.0.0.1:8000/v1/completions,\
tokenizer_backend=huggingface,tokenizer=TOKENIZER,num_concurrent=4
```
"""
