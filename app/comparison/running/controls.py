"""What could make models unlike besides their weights, and whether it was the same for all. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.comparison.report.contents import ControlLine
from app.comparison.running.run_record import DrawnWith, SeenModel

_FAILED: Final = "failed"  # how the summary of a certificate begins that failed


def controls(models: Sequence[SeenModel], sampling: DrawnWith) -> tuple[ControlLine, ...]:
    """A line for each, as they stand in the report."""
    return (
        _certificates(models),
        _prompts(models),
        _contexts(models),
        _alike("engine", models, {each.name: _engine(each) for each in models}, "runs on"),
        _alike("quantization", models, {each.name: each.quantization for each in models}, "has weights of"),
        _sampling(models, sampling),
        _servings(models),
    )


def refusals(models: Sequence[SeenModel], why_not: str | None = None) -> list[str]:
    """Why these models cannot be compared as they are served, one sentence each. `why_not`: what the gateway says,
    which looks at the certificates itself.
    """
    failed = [each for each in models if (each.parity or "").startswith(_FAILED)] if why_not is None else []
    several = [each for each in models if len(each.servings) > 1]
    return [
        *([why_not] if why_not is not None else ()),
        *(
            f"{each.name!r} is not served as it was trained: its certificate says {each.parity!r} "
            f"(`modelport parity {each.name}` says more)."
            for each in failed
        ),
        *(
            f"{each.name!r} is served by engines that are not the same (servings {', '.join(each.servings)}), so its "
            "answers would be of several models: name one that has one of them."
            for each in several
        ),
    ]


def share_an_engine(models: Sequence[SeenModel]) -> bool:
    """Whether two of them are served by one engine, as a model and its adapter are. vLLM 0.32 for the CPU answers for
    the model with the adapter's weights where both are in one batch, so these are asked one after the other.
    """
    return len({each.backend for each in models}) < len(models)


def twins(models: Sequence[SeenModel]) -> list[str]:
    """What is to be said of models that are made from the same bytes, one sentence each."""
    return [
        f"{one.name!r} and {other.name!r} answer with the same bytes (serving {one.servings[0]}): what is different "
        "between them is chance."
        for at, one in enumerate(models)
        for other in models[at + 1 :]
        if one.servings and one.servings == other.servings
    ]


def drifted(before: Sequence[SeenModel], now: Sequence[SeenModel]) -> str | None:
    """Why a run that began with these models cannot go on with what they are now; None where it can."""
    known = {each.name: each.servings for each in before}
    for each in now:
        then = known.get(each.name, ())
        if then and each.servings and not set(each.servings) <= set(then):
            return (
                f"what {each.name!r} answers with has changed since the comparison began (serving {' or '.join(then)}, "
                f"now {' or '.join(each.servings)})"
            )
    return None


def _certificates(models: Sequence[SeenModel]) -> ControlLine:
    how = "; ".join(f"{each.name}: {each.parity or 'no certificate'}" for each in models)
    if any((each.parity or "").startswith(_FAILED) for each in models):
        return ControlLine("certificate", "different", how)
    whole = all((each.parity or "").startswith("verified") for each in models)
    return ControlLine("certificate", "same" if whole else "unknown", how)


def _prompts(models: Sequence[SeenModel]) -> ControlLine:
    silent = [each.name for each in models if each.prompt is None]
    told = {each.prompt for each in models if each.prompt is not None}
    if len(told) > 1:
        return ControlLine("prompt", "different", "the engines make different prompts of the first question")
    if silent:
        return ControlLine("prompt", "unknown", f"the engine does not tell its prompt: {', '.join(silent)}")
    return ControlLine("prompt", "same", "all engines make the same prompt of the first question")


def _contexts(models: Sequence[SeenModel]) -> ControlLine:
    lengths = {each.name: each.context_length for each in models}
    how = ", ".join(f"{name}: {length if length is not None else 'not known'}" for name, length in lengths.items())
    if None in lengths.values():
        return ControlLine("context", "unknown", f"tokens of prompt and answer: {how}")
    same = len(set(lengths.values())) == 1
    return ControlLine("context", "same" if same else "different", f"tokens of prompt and answer: {how}")


def _alike(what: str, models: Sequence[SeenModel], values: Mapping[str, str | None], verb: str) -> ControlLine:
    how = "; ".join(f"{each.name} {verb} {values[each.name] or 'what is not known'}" for each in models)
    if None in values.values():
        return ControlLine(what, "unknown", how)
    return ControlLine(what, "same" if len(set(values.values())) == 1 else "different", how)


def _sampling(models: Sequence[SeenModel], sampling: DrawnWith) -> ControlLine:
    said = f"temperature {sampling.temperature:g}, top_p {sampling.top_p:g}, at most {sampling.max_tokens} tokens, "
    said += f"for each question a seed of its own (made from {sampling.seed}), the same for all models"
    plain = [each.name for each in models if each.only_openai]
    if plain:
        return ControlLine(
            "sampling",
            "unknown",
            f"every request said {said}; whether {', '.join(plain)} adds sampling of its own is not known",
        )
    return ControlLine(
        "sampling", "same", f"every request said {said}, and that nothing else (top_k, min_p, penalties) applies"
    )


def _servings(models: Sequence[SeenModel]) -> ControlLine:
    unknown = [each.name for each in models if not each.servings]
    how = "; ".join(f"{each.name}: {' or '.join(each.servings) or 'not known'}" for each in models)
    if unknown:
        return ControlLine("serving", "unknown", f"what answers were made from: {how}")
    return ControlLine("serving", "same", f"each model was the same from the first answer to the last: {how}")


def _engine(model: SeenModel) -> str | None:
    if not model.kind:
        return None
    return f"{model.kind} {model.version}" if model.version else model.kind


def servings_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The digests of what a name's answers are made from, of its entry in `/admin/models`."""
    return tuple(sorted({str(each["digest"]) for each in entry.get("servings") or () if each.get("digest")}))
