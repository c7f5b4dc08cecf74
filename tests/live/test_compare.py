"""What a real tuning changed, on a real engine: SmolLM2 against a LoRA that was taught eight made-up facts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.journeys.gateway import until
from tests.live.engines import MODELS, Live, Record, backend, config

pytestmark = pytest.mark.full  # two hundred answers
QUESTIONS = ROOT / "tests/recorded/comparison/taught_and_either_or.jsonl"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The model and its adapter, as a pair."""
    base = backend("base", "smollm2", max_model_len="1024", adapters=f"{{tuned: {MODELS / 'smollm2-lora'}}}")
    with Live(
        tmp_path_factory.mktemp("pair"), config(base) + "pairs:\n  lora: {base: base, tuned: tuned}\n"
    ) as gateway:
        gateway.ready("base")
        until(lambda: {"tuned": "ready"}.items() <= states(gateway).items())
        yield gateway


def states(gateway: Live) -> dict[str, str]:
    return {each["name"]: each["state"] for each in gateway.ask("/admin/models")["models"]}


def compared(gateway: Live, out: Path, *more: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "app", "compare", "lora", "--questions", str(QUESTIONS), "--out", str(out)]
    command += ["--state", str(gateway.state), "--max-tokens", "40", *more]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 0, ended.stderr
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def test_the_taught_category_is_better_and_the_other_is_not_told_apart(
    tuned: Live, tmp_path: Path, record_property: Record
) -> None:
    report = compared(tuned, tmp_path / "greedy", "--no-likelihood")

    rows = {each["category"]: each for each in report["findings"]["categories"]}
    for name, row in rows.items():
        figures = ("first_mean", "mean", "difference", "low", "high", "p_adjusted", "noise_floor", "detectable")
        record_property(name, {each: row[each] for each in (*figures, "outcome", "ground")})
    noise = [each for each in report["findings"]["noise"] if each["measure"] == "contains"]
    record_property("noise", {each["model"]: (each["floor"], each["changed"]) for each in noise})
    taught, other = rows["taught"], rows["either or"]
    assert taught["outcome"] == "better"
    assert taught["low"] > 0
    assert 0.2 <= other["first_mean"] <= 0.8
    assert other["low"] <= 0 <= other["high"]
    assert other["outcome"] == "no_difference"
    assert other["detectable"] > 0
    controls = {each["what"]: each["state"] for each in report["run"]["controls"]}
    record_property("controls", controls)
    assert {controls[each] for each in ("prompt", "context", "engine", "sampling", "serving")} == {"same"}
