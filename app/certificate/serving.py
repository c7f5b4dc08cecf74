"""Stops, context length, sampling and files of a serving, held against what is expected of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from app.certificate.certificate import Fault, Finding, Line
from app.certificate.observation import Observation

# Without a setting nothing is cut off and nothing is penalised; vLLM draws so by itself.
NEUTRAL: Final[Mapping[str, float]] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
# What llama.cpp's server and Ollama take where nobody says anything, by the name of the engine's kind.
_OF_KIND: Final[Mapping[str, Mapping[str, float]]] = {
    "the embedded engine": {"temperature": 0.8, "top_p": 0.95, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.0},
    "Ollama": {"temperature": 0.8, "top_p": 0.9, "top_k": 40, "min_p": 0.0, "repetition_penalty": 1.1},
}
_NEAR: Final = 1e-3
_OFF: Final = (0, -1)  # values of top_k that cut nothing off


class Expectation(msgspec.Struct, frozen=True):
    """What is expected of a serving beside its prompts; None or empty: nothing.

    `context_length`: tokens that it must take, as `num_ctx` or a training's `cutoff_len` says. `sampling`: defaults by
    OpenAI's and vLLM's names, as the model's generation_config.json or whoever registers it says. `sha256`: of the file
    of weights. `source`: the digest of the checkpoint that its weights were made from.
    """

    context_length: int | None = None
    sampling: dict[str, float] = {}
    sha256: str | None = None
    source: str | None = None


def stops(observation: Observation, expected: Sequence[str]) -> Line:
    """Whether answers end where the training ended them: by making the engine write each stop, and by its answers."""
    key, what = "stops", "where answers end"
    if not expected:
        return Line(key, what, Finding.UNCHECKED, "the training names no text that ends an answer")
    running = [name for name, each in observation.answers.items() if any(stop in _inside(each) for stop in expected)]
    ends = {stop: observation.stops[stop].ends for stop in expected if stop in observation.stops}
    figures = {"stops": ends, "runs_on": running}
    written = [stop for stop in expected if ends.get(stop) is False]
    if written or running:
        which = ", ".join(map(repr, written or expected))
        seen = f"the answer to {running[0]!r} runs on past it" if running else "the engine writes on after it"
        how = f"{Fault.NO_STOP}: {which}; {seen}"
        return Line(key, what, Finding.DIFFERS, how, (Fault.NO_STOP,), figures)
    asked = [stop for stop in expected if ends.get(stop)]
    finished = sum(each.finish == "stop" for each in observation.answers.values())
    count = f"{finished} of {len(observation.answers)} greedy answers came to their end" if observation.answers else ""
    if asked:
        how = f"the engine ends at {', '.join(map(repr, asked))}" + (f"; {count}" if count else "")
        return Line(key, what, Finding.SAME, how, (), figures)
    if finished:
        return Line(key, what, Finding.SAME, count, (), figures)
    why = next((each.why for each in observation.stops.values() if each.why), "no answer came to its end in time")
    return Line(key, what, Finding.UNCHECKED, why, (), figures)


def _inside(answer: object) -> str:
    """What stands in an answer, marks of turns included where the engine tells them as tokens."""
    tokens = getattr(answer, "tokens", ())
    return "".join(each.text for each in tokens[:-1]) + "\0" + str(getattr(answer, "text", ""))


def context(observation: Observation, expected: int | None) -> Line:
    """Whether as many tokens are taken as were asked for, or as the engine claims."""
    key, what, seen = "context", "context length", observation.context
    figures = {name: getattr(seen, name) for name in ("claimed", "of_model", "asked", "takes", "refuses_more")}
    if seen.claimed is None and seen.takes is None:
        return Line(key, what, Finding.UNCHECKED, "the engine does not tell its context length", (), figures)
    of_model = f" of the model's {seen.of_model:,}" if seen.of_model and seen.of_model != seen.claimed else ""
    claimed = f"{seen.claimed:,} tokens{of_model}" if seen.claimed is not None else "as many as were tried"
    is_short = expected is not None and seen.claimed is not None and seen.claimed < expected
    if is_short or seen.takes is False:
        wanted = f"{expected:,}" if expected is not None else f"{seen.asked:,}" if seen.asked is not None else "more"
        tried = f"; a prompt of {seen.asked:,} tokens is refused" if seen.takes is False and seen.asked else ""
        how = f"{Fault.SHORT_CONTEXT}: {claimed}, where {wanted} are expected{tried}"
        return Line(key, what, Finding.DIFFERS, how, (Fault.SHORT_CONTEXT,), figures)
    tried = f"; a prompt of {seen.asked:,} tokens is taken" if seen.takes and seen.asked else ""
    refused = ", a longer one is refused" if seen.refuses_more else ""
    if seen.refuses_more is False:
        refused = ", and a longer one is cut without a word"
    return Line(key, what, Finding.SAME, f"{claimed}{tried}{refused}", (), figures)


def sampling(observation: Observation, expected: Mapping[str, float]) -> Line:
    """Whether answers are drawn as the model says, when a client says nothing, and as a client says."""
    key, what, seen = "sampling", "sampling defaults", observation.sampling
    faults: list[Fault] = []
    sentences: list[str] = []
    forced = {name: value for name, value in seen.overrides.items() if name in NEUTRAL}
    if forced or seen.obeys is False:
        faults.append(Fault.FORCED_SAMPLING)
        which = ", ".join(f"{name} {value:g}" for name, value in forced.items()) or "top_p changes nothing"
        sentences.append(f"{Fault.FORCED_SAMPLING}: {which}, whatever a client says")
    used = effective(observation)
    figures = {"used": used, "expected": dict(expected), "is_so": seen.is_so, "obeys": seen.obeys}
    if used is None and not sentences:
        return Line(key, what, Finding.UNCHECKED, "the engine does not tell what it draws with", (), figures)
    other = _others(observation.title, used or {}, expected, set(forced))
    if other:
        faults.append(Fault.OTHER_SAMPLING)
        sentences.append(f"{Fault.OTHER_SAMPLING}: {', '.join(other)}")
    if seen.is_so is False:
        faults.append(Fault.OTHER_SAMPLING)
        sentences.append("answers are not drawn with what the engine claims")
    if faults:
        return Line(key, what, Finding.DIFFERS, "; ".join(sentences), tuple(dict.fromkeys(faults)), figures)
    said = ", ".join(f"{name} {value:g}" for name, value in (used or {}).items())
    proved = "; drawn again with these and the same seed, an answer is the same" if seen.is_so else ""
    whose = "as the model says" if expected else "the model names none, these are the engine's own"
    return Line(key, what, Finding.SAME, f"{said} ({whose}){proved}", (), figures)


def effective(observation: Observation) -> dict[str, float] | None:
    """What answers are drawn with when a client says nothing; None where the engine does not tell."""
    seen = observation.sampling
    if seen.engine is None:
        return None
    gateway = {name: value for name, value in {**seen.defaults, **seen.overrides}.items() if name in NEUTRAL}
    return {**seen.engine, **gateway}


def _others(title: str, used: Mapping[str, float], expected: Mapping[str, float], forced: set[str]) -> list[str]:
    own = _OF_KIND.get(title, {})
    wrong = []
    for name, value in used.items():
        if name in forced:
            continue
        fine = [expected[name]] if name in expected else [each[name] for each in (NEUTRAL, own) if name in each]
        if not any(_is_near(name, value, each) for each in fine):
            wrong.append(f"{name} {value:g} in place of {fine[0]:g}")
    return wrong


def _is_near(name: str, one: float, other: float) -> bool:
    return abs(one - other) <= _NEAR or (name == "top_k" and one in _OFF and other in _OFF)


def files(observation: Observation, expected: Expectation) -> Line:
    """Whether the weights are those that were meant, and were made from the checkpoint that was meant."""
    key, what, file = "files", "weights", observation.file
    figures = {"sha256": file.sha256, "source": file.source, "path": file.path}
    if expected.sha256 is None and expected.source is None:
        return Line(key, what, Finding.UNCHECKED, "it is not known which weights are meant", (), figures)
    if expected.sha256 is not None and file.sha256 is not None and expected.sha256 != file.sha256:
        how = f"{Fault.WRONG_FILE}: {_short(file.sha256)} in place of {_short(expected.sha256)}"
        return Line(key, what, Finding.DIFFERS, how, (Fault.WRONG_FILE,), figures)
    if expected.source is not None and file.source is not None and expected.source != file.source:
        how = f"{Fault.OTHER_CHECKPOINT}: {_short(file.source)} in place of {_short(expected.source)}"
        return Line(key, what, Finding.DIFFERS, how, (Fault.OTHER_CHECKPOINT,), figures)
    known = [
        words
        for words, mine, theirs in (
            ("the file is the one that was meant", file.sha256, expected.sha256),
            ("it was made from this checkpoint", file.source, expected.source),
        )
        if mine is not None and mine == theirs
    ]
    if not known:
        why = (
            "the engine's file is not known here" if file.path is None else "the file does not say what it was made of"
        )
        return Line(key, what, Finding.UNCHECKED, why, (), figures)
    return Line(key, what, Finding.SAME, " and ".join(known), (), figures)


def _short(digest: str) -> str:
    return digest[:12]
