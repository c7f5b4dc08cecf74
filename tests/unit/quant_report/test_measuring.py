"""What becomes of what the children say: believed when it agrees, replaced by bounds when it does not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.quant_report.figures import Speed
from app.quant_report.measuring import BOTH, EXACT, LOGITS, SERVED, TOP_LOGPROBS, Session, Workbench, tokens
from app.quant_report.passages import Passage
from app.quant_report.windows import windows
from backends.llama_cpp.likelihood.library import library

CUT = windows([range(10)], [], size=6, stride=3)
HALF = math.log(0.5)


class Children:
    """Plays both children: every position has two likely tokens. `differences`: what the self-test of a file gives."""

    def __init__(self, **differences: float) -> None:
        self.differences = differences
        self.asked: list[tuple[str, str]] = []

    def __call__(self, python: Path, script: Path, request: Mapping[str, Any], told: Any, *, env: Any) -> Any:
        name = Path(request["model"]).stem
        self.asked.append((script.stem, name))
        assert env["GOMP_SPINCOUNT"]
        if script == SERVED:
            return self.served(request, told)
        assert script == LOGITS
        assert Path(request["library"]).exists()
        difference = self.differences.get(name, 0.0001)
        if difference > request["tolerance"]:
            return {"difference": difference}
        count = sum(len(tokens) - first for tokens, first in request["windows"])
        rest = ([], []) if request["is_reference"] else ([0.25] * count, [True] * count)
        return {"difference": difference, "nll": [0.5] * count, "kl": rest[0], "same": rest[1]}

    def served(self, request: Mapping[str, Any], told: Any) -> Any:
        if "passages" in request:
            return {"tokens": [[1, 2]], "bos": [1], "refused": 1, "first_refusal": "no", "seen": request["passages"]}
        if "steps" in request:
            told({"done": 1, "total": 2})
            positions = [token for tokens, first in request["steps"] for token in tokens[first:]]
            return {"steps": [[[token, HALF], [token + 1, HALF]] for token in positions]}
        return {
            "probes": [[[1, HALF]] for _ in request["probes"]],
            "prompt_per_s": 10.0,
            "generated_per_s": 5.0,
            "resident_bytes": 7,
        }


class Listener:
    """Who is told."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.counts: list[tuple[int, int]] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def count(self, done: int, total: int) -> None:
        self.counts.append((done, total))


def session(children: Children, method: str, listener: Listener | None = None) -> Session:
    bench = Workbench(Path("python"), 2, 6, children, listener or Listener())
    return Session(bench, Path("first.gguf"), CUT, method, "scratch")


def test_logits_that_agree_are_believed_and_nothing_else_is_asked() -> None:
    children, listener = Children(), Listener()
    both = session(children, EXACT, listener)

    first, second = both.reference(), both.compared(Path("second.gguf"))

    assert first.exact is not None
    assert second.exact is not None
    assert (first.speed, first.difference, first.approximate) == (Speed(10.0, 5.0, 7), 0.0001, None)
    assert second.exact.kl == (0.25,) * 9
    assert children.asked == [(script, name) for name in ("first", "second") for script in ("served", "logits")]
    assert listener.steps[:2] == ["first.gguf: speed and memory", "first.gguf: all logits"]


def test_where_the_references_do_not_agree_everything_is_bounds() -> None:
    children = Children(first=0.5)
    both = session(children, EXACT)

    first, second = both.reference(), both.compared(Path("second.gguf"))

    assert (first.exact, second.exact, first.difference, second.difference) == (None, None, 0.5, None)
    assert first.approximate is not None
    assert second.approximate is not None
    assert second.approximate.nll == pytest.approx((-HALF,) * 9)
    assert second.approximate.kl == (0.0,) * 9
    assert ("logits", "second") not in children.asked


def test_where_one_of_them_does_not_agree_the_reference_gets_bounds_too() -> None:
    both = session(Children(second=math.inf), EXACT)

    first, second = both.reference(), both.compared(Path("second.gguf"))

    assert first.approximate is None
    assert second.exact is None
    assert second.approximate is not None
    assert both.reference_bounds().nll == pytest.approx((-HALF,) * 9)


@pytest.mark.parametrize(("method", "has_exact"), [(BOTH, True), (TOP_LOGPROBS, False)])
def test_bounds_are_measured_when_they_are_asked_for(method: str, has_exact: bool) -> None:
    listener = Listener()
    measured = session(Children(), method, listener).reference()

    assert (measured.exact is not None) is has_exact
    assert measured.approximate is not None
    assert measured.approximate.seen == 1
    assert listener.counts == [(1, 2)]


def test_conversations_are_rendered_by_the_engine_and_texts_are_not() -> None:
    children = Children()
    passages = [
        Passage(messages=({"role": "user", "content": "Hi"},), tools=({"type": "function"},)),
        Passage(text="x"),
    ]

    said = tokens(Workbench(Path("python"), 2, 6, children, Listener()), Path("m.gguf"), passages, 100)

    assert (said.passages, said.start, said.refused, said.first_refusal) == (((1, 2),), (1,), 1, "no")


def test_the_engines_library_is_where_its_package_is() -> None:
    assert library().parent.name == "xllamacpp"
