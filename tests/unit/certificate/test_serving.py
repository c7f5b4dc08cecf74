"""Stops, context, sampling and files: as expected, and each fault by its name."""

from __future__ import annotations

import msgspec
import pytest

from app.certificate import serving
from app.certificate.certificate import Fault, Finding
from app.certificate.observation import (
    Observation,
    SeenAnswer,
    SeenContext,
    SeenFile,
    SeenSampling,
    SeenStop,
    SeenToken,
)
from app.certificate.serving import Expectation

SEEN = Observation("m", "b", "vllm", "vLLM")
VLLM = {"temperature": 1.0, "top_p": 1.0, "top_k": 0.0, "min_p": 0.0, "repetition_penalty": 1.0}
EMBEDDED = {"temperature": 0.8, "top_p": 0.95, "top_k": 40.0, "min_p": 0.05, "repetition_penalty": 1.0}


def seen(**fields: object) -> Observation:
    return msgspec.structs.replace(SEEN, **fields)


END = "<|im_end|>"
STOPS = {
    "ends there": ({END: SeenStop(True)}, {}, Finding.SAME),
    "writes on": ({END: SeenStop(False)}, {}, Finding.DIFFERS),
    "runs on": (
        {END: SeenStop(why="it cannot be asked")},
        {"one": SeenAnswer("12.", (SeenToken("12.", 0), SeenToken(END, 0), SeenToken("x", 0)), "length")},
        Finding.DIFFERS,
    ),
    "as text": ({}, {"one": SeenAnswer(f"12.{END}\nuser", (), "length")}, Finding.DIFFERS),
    "came to its end": ({END: SeenStop(why="cannot")}, {"one": SeenAnswer("12.", (), "stop")}, Finding.SAME),
    "its stop is its last token": ({}, {"one": SeenAnswer("12.", (SeenToken(END, 0),), "stop")}, Finding.SAME),
    "cut off": ({END: SeenStop(why="cannot")}, {"one": SeenAnswer("12", (), "length")}, Finding.UNCHECKED),
}


@pytest.mark.parametrize("case", STOPS)
def test_an_answer_ends_where_the_training_ended_it(case: str) -> None:
    stops, answers, verdict = STOPS[case]

    line = serving.stops(seen(stops=stops, answers=answers), (END,))

    assert line.verdict is verdict
    assert line.faults == ((Fault.NO_STOP,) if verdict is Finding.DIFFERS else ())


def test_without_a_stop_of_the_training_nothing_can_be_checked() -> None:
    assert serving.stops(SEEN, ()).verdict is Finding.UNCHECKED


CONTEXTS = {
    "as asked": (SeenContext(8192, 8192, 2047, True, True), 2048, Finding.SAME),
    "too short": (SeenContext(512, 8192, 2047, False, True), 2048, Finding.DIFFERS),
    "claims more than it takes": (SeenContext(2048, 8192, 2047, False, True), 2048, Finding.DIFFERS),
    "nothing asked": (SeenContext(512, 8192, None, None, True), None, Finding.SAME),
    "not told": (SeenContext(), 2048, Finding.UNCHECKED),
}


@pytest.mark.parametrize("case", CONTEXTS)
def test_as_much_context_is_taken_as_was_asked_for(case: str) -> None:
    context, expected, verdict = CONTEXTS[case]

    line = serving.context(seen(context=context), expected)

    assert line.verdict is verdict


def test_a_prompt_that_is_cut_without_a_word_is_said() -> None:
    assert "cut without a word" in serving.context(seen(context=SeenContext(512, refuses_more=False)), None).how


SAMPLINGS: dict[str, tuple[str, SeenSampling, dict[str, float], tuple[Fault, ...]]] = {
    "the engine's own": ("vLLM", SeenSampling(VLLM, is_so=True, obeys=True), {}, ()),
    "llama.cpp's own": ("the embedded engine", SeenSampling(EMBEDDED, is_so=True, obeys=True), {}, ()),
    "as the model says": ("vLLM", SeenSampling({**VLLM, "top_p": 0.8}), {"top_p": 0.8}, ()),
    "lost": ("the embedded engine", SeenSampling(EMBEDDED), {"temperature": 0.6}, (Fault.OTHER_SAMPLING,)),
    "by the gateway": ("the embedded engine", SeenSampling(EMBEDDED, {"temperature": 0.6}), {"temperature": 0.6}, ()),
    "a setting over it": ("vLLM", SeenSampling({**VLLM, "top_p": 0.1}), {}, (Fault.OTHER_SAMPLING,)),
    "forced": ("vLLM", SeenSampling(VLLM, {}, {"top_p": 0.1}, True, False), {}, (Fault.FORCED_SAMPLING,)),
    "not obeyed": ("vLLM", SeenSampling(VLLM, obeys=False), {}, (Fault.FORCED_SAMPLING,)),
    "not what it claims": ("vLLM", SeenSampling(VLLM, is_so=False), {}, (Fault.OTHER_SAMPLING,)),
    "no limit by two names": ("vLLM", SeenSampling({**VLLM, "top_k": -1.0}), {"top_k": 0.0}, ()),
    "stops are no sampling": ("vLLM", SeenSampling(VLLM, {"stop": ["x"]}, {"stop": ["y"]}), {}, ()),
}


@pytest.mark.parametrize("case", SAMPLINGS)
def test_answers_are_drawn_as_the_model_says(case: str) -> None:
    title, sampling, expected, faults = SAMPLINGS[case]

    line = serving.sampling(seen(title=title, sampling=sampling), expected)

    assert line.faults == faults
    assert line.verdict is (Finding.DIFFERS if faults else Finding.SAME)


def test_what_nobody_tells_is_not_checkable() -> None:
    assert serving.sampling(SEEN, {}).verdict is Finding.UNCHECKED
    assert serving.files(SEEN, Expectation()).verdict is Finding.UNCHECKED
    assert serving.files(SEEN, Expectation(sha256="a" * 64)).verdict is Finding.UNCHECKED


FILES = {
    "the same": (SeenFile("/m", "a" * 64), Expectation(sha256="a" * 64), ()),
    "another": (SeenFile("/m", "b" * 64), Expectation(sha256="a" * 64), (Fault.WRONG_FILE,)),
    "made from it": (SeenFile("/m", "b" * 64, "c" * 64), Expectation(source="c" * 64), ()),
    "made from another": (SeenFile("/m", "b" * 64, "d" * 64), Expectation(source="c" * 64), (Fault.OTHER_CHECKPOINT,)),
}


@pytest.mark.parametrize("case", FILES)
def test_the_weights_are_those_that_were_meant(case: str) -> None:
    file, expected, faults = FILES[case]

    line = serving.files(seen(file=file), expected)

    assert line.faults == faults
    assert line.verdict is (Finding.DIFFERS if faults else Finding.SAME)
