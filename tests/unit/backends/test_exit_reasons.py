"""Why a process ended: by the signal that it got, else by the last lines that it printed; for every kind of engine."""

from __future__ import annotations

import signal

import pytest

from backends.engine import Explain
from backends.huggingface import fetcher
from backends.llama_cpp import engine as llama_cpp_engine
from backends.ollama import engine as ollama_engine
from backends.process.exit_reasons import KILLED, exit_in_words, signal_of
from backends.vllm import failures as vllm_failures

# What each would say if its lines counted.
ENGINES: dict[str, tuple[Explain, str]] = {
    "vllm": (vllm_failures.explain, "safetensors_rust.SafetensorError: Error while deserializing header"),
    "llama_cpp": (llama_cpp_engine.explain, "error loading model: invalid magic"),
    "ollama": (ollama_engine.explain, "Error: permission denied"),
    "a download": (fetcher.explain, "failed: the hub cannot be reached"),
}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("has_served", [False, True])
@pytest.mark.parametrize("code", [-9, 137, -15, 143, -2, -1])
def test_a_signal_comes_first(name: str, has_served: bool, code: int) -> None:
    explain, line = ENGINES[name]

    sentence = explain(code, ["before", line, "after"], has_served)

    assert KILLED in sentence or f"ended by signal {signal_of(code)}" in sentence


@pytest.mark.parametrize("name", ["vllm", "llama_cpp", "ollama"])
def test_what_kept_it_from_starting_is_not_why_one_that_served_has_ended(name: str) -> None:
    explain, line = ENGINES[name]

    assert explain(1, [line]) != "it exited with code 1"
    assert explain(1, [line], has_served=True) == "it exited with code 1"


LAST_WORDS = {
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate": "the GPU's memory is not enough",
    "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.": "its core process died",
    "Worker proc VllmWorker-1 died unexpectedly, shutting down executor.": "one of its worker processes died",
}


@pytest.mark.parametrize("line", LAST_WORDS)
def test_one_that_served_is_explained_by_what_can_end_one_that_serves(line: str) -> None:
    assert vllm_failures.explain(0, [line], has_served=True).startswith(LAST_WORDS[line])


def test_a_crash_is_explained_by_its_last_lines() -> None:
    line = "Fatal Python error: Illegal instruction"

    assert "does not run on this processor" in vllm_failures.explain(-signal.SIGILL, [line], has_served=True)
    assert "memory is not enough" in llama_cpp_engine.explain(-signal.SIGABRT, ["terminate called: std::bad_alloc"])
    assert llama_cpp_engine.explain(-signal.SIGSEGV, []) == "it was ended by signal 11"


@pytest.mark.parametrize(
    ("code", "number"), [(-9, 9), (137, 9), (0, None), (1, None), (128, None), (255, None), (-11, 11)]
)
def test_a_shell_between_hides_no_signal(code: int, number: int | None) -> None:
    assert signal_of(code) == number
    assert exit_in_words(code, ()) == (
        f"it was ended by signal {number}" if number is not None else f"it exited with code {code}"
    )
