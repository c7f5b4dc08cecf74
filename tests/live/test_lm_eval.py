"""EleutherAI's lm-eval, unchanged, from its own package: past the gateway, through it, and on the embedded engine."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.conversion.convert import convert
from app.conversion.progress import Unseen
from backends.toolenv.environment import Toolbox
from tests import ROOT
from tests.live.engines import MODELS, Live, Record, backend, config

pytestmark = pytest.mark.full  # an environment of 930 MB, and a conversion
PACKAGES = ("lm_eval[api]==0.4.13", "transformers==5.24.0")
TASK = Path(__file__).parent / "lm_eval"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1"}
LM_EVAL = Path(os.environ.get("MODELPORT_LM_EVAL", ROOT / "build/lm-eval"))
Sample = tuple[list[list[float]], float, float]  # log likelihood and whether it is the likeliest, by choice; the scores


@pytest.fixture(scope="module")
def lm_eval() -> Path:
    """Its program, in an environment of its own, which is made where it is missing."""
    program = LM_EVAL / "bin/lm_eval"
    if not program.exists():
        venv.create(LM_EVAL, with_pip=True, clear=True)
        pip = [str(LM_EVAL / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, *PACKAGES], check=True)
    return program


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One model on vLLM, and as f16 on the embedded engine."""
    named = os.environ.get("MODELPORT_TOOLS", str(ROOT / "build/tools"))
    toolbox = Toolbox(Path(named), lambda line: print(line, flush=True), lambda _: False)
    made = convert(MODELS / "smollm2", "f16", tmp_path_factory.mktemp("files"), toolbox, Unseen())
    embedded = f"\n  f16:\n    kind: llama_cpp\n    model: {made.path}\n    context_length: 2048\n    slots: 2"
    with Live(
        tmp_path_factory.mktemp("gateway"),
        config(backend("smollm", "smollm2", kv_cache_memory_bytes="134217728"), embedded),
    ) as gateway:
        gateway.ready("smollm")
        gateway.ready("f16")
        yield gateway


class Evaluation:
    """One run of lm-eval over the task. `scores`: by metric; `samples`: of each question, in their order."""

    def __init__(self, lm_eval: Path, url: str, model: str, folder: Path, key: str = "none") -> None:
        arguments = f"model={model},base_url={url}/v1/completions,tokenizer_backend=huggingface"
        arguments += f",tokenizer={MODELS / 'smollm2'},num_concurrent=2,max_retries=1"
        line = [str(lm_eval), "run", "--model", "local-completions", "--model_args", arguments]
        line += ["--tasks", "everyday", "--include_path", ".", "--output_path", str(folder), "--log_samples"]
        env = {**os.environ, **OFFLINE, "HF_HOME": str(folder / "cache"), "OPENAI_API_KEY": key}
        done = subprocess.run(line, cwd=TASK, env=env, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-3000:]
        (results,) = folder.glob("*/results_*.json")
        (samples,) = folder.glob("*/samples_everyday_*.jsonl")
        told: dict[str, Any] = json.loads(results.read_text())["results"]["everyday"]
        self.scores = {name: told[f"{name},none"] for name in ("acc", "acc_norm")}
        rows = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda row: int(row["doc_id"]))
        self.samples: list[Sample] = [(row["filtered_resps"], row["acc"], row["acc_norm"]) for row in rows]


def furthest(one: Evaluation, other: Evaluation) -> float:
    """The largest difference between their log likelihoods of one choice, in nats."""
    return max(
        abs(float(mine[0]) - float(theirs[0]))
        for left, right in zip(one.samples, other.samples, strict=True)
        for mine, theirs in zip(left[0], right[0], strict=True)
    )


def test_a_multiple_choice_task_scores_the_same_through_the_gateway_and_on_the_embedded_engine(
    lm_eval: Path, served: Live, tmp_path: Path, record_property: Record
) -> None:
    group = served.group("smollm")
    past = f"http://127.0.0.1:{group.port}"
    direct = Evaluation(lm_eval, past, "smollm", tmp_path / "direct", key=group.environ("VLLM_API_KEY"))
    through = Evaluation(lm_eval, served.url, "smollm", tmp_path / "through")
    embedded = Evaluation(lm_eval, served.url, "f16", tmp_path / "embedded")

    record_property("vLLM direct", direct.scores)
    record_property("vLLM through the gateway", f"{through.scores}, {furthest(direct, through):.1e} nats at most apart")
    record_property("embedded f16", f"{embedded.scores}, {furthest(direct, embedded):.3f} nats at most apart")
    assert len(direct.samples) == 60
    assert through.scores == pytest.approx(direct.scores, abs=0.00005)
    assert embedded.scores == pytest.approx(direct.scores, abs=0.01)


def test_the_legacy_shape_of_both_engines_is_the_same(served: Live) -> None:
    asked = {"prompt": ["The capital of France is Paris.", "Hi"], "echo": True, "logprobs": 2, "temperature": 0}
    for bound in (0, 1):
        one, other = (
            served.post("/v1/completions", {**asked, "model": name, "max_tokens": bound}).json()
            for name in ("smollm", "f16")
        )
        assert one["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"]
        for mine, theirs in zip(one["choices"], other["choices"], strict=True):
            assert mine["text"] == theirs["text"]
            assert mine["logprobs"]["tokens"] == theirs["logprobs"]["tokens"]
            assert mine["logprobs"]["text_offset"] == theirs["logprobs"]["text_offset"]
            assert mine["logprobs"]["token_logprobs"][0] is theirs["logprobs"]["token_logprobs"][0] is None
            assert mine["logprobs"]["token_logprobs"][1:] == pytest.approx(
                theirs["logprobs"]["token_logprobs"][1:], abs=0.05
            )
            tops = [each["logprobs"]["top_logprobs"][1:] for each in (mine, theirs)]
            assert [set(top) for top in tops[0]] == [set(top) for top in tops[1]]
