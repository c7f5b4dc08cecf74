"""The sampling that all models of a comparison are sent, said in full: no engine's own default decides. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from app.table import Rules

# What is not given: always the likeliest token, nothing cut off, nothing penalised.
NEUTRAL: Final[Mapping[str, Any]] = {
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
MAX_TOKENS: Final = 1024
# Servers of others may refuse what OpenAI's API does not have; they get it only where the client asks for it.
NOT_OPENAIS: Final = ("top_k", "min_p", "repetition_penalty")
_STOP: Final = "stop"  # belongs to a model's template, so each name keeps its own


class SampledModel(NamedTuple):
    """One of the models, as far as its sampling goes. `is_local`: engines of this machine answer for it."""

    name: str
    rules: Rules
    is_local: bool


class SharedSampling(msgspec.Struct, frozen=True):
    """`settings`: what every model is sent. `filled`: what of it the client had left out. `rules`: of each model, with
    which its engine is sent exactly that. `reasons`: why the sampling is not the same for all. `notes`: what of it some
    engine is not told.
    """

    settings: Mapping[str, Any]
    filled: tuple[str, ...]
    rules: tuple[Rules, ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]


def shared(given: Mapping[str, Any], models: Sequence[SampledModel], seed: int, max_tokens: int) -> SharedSampling:
    """The sampling for all: what the client gives, then the default that all the names have in common, then NEUTRAL.

    `seed`, `max_tokens`: where nothing else says them. Each name's own `overrides` count, and are a reason where they
    make the models unlike.
    """
    defaults = {**_in_common(models), **given}
    wanted = {**NEUTRAL, "seed": seed, "max_tokens": max_tokens, **defaults}
    effective = [{**wanted, **_own(model.rules.overrides)} for model in models]
    settings = {name: effective[0][name] for name in effective[0] if _is_same(name, effective)}
    others = [model.name for model in models if not model.is_local]
    left_out = tuple(name for name in NOT_OPENAIS if name not in given) if others else ()
    return SharedSampling(
        settings={name: value for name, value in settings.items() if name not in left_out},
        filled=tuple(name for name in settings if name not in given and name not in left_out),
        rules=tuple(
            _rules(model.rules, each, () if model.is_local else left_out)
            for model, each in zip(models, effective, strict=True)
        ),
        reasons=tuple(_reasons(models, effective)),
        notes=tuple(_notes(others, left_out)),
    )


def _own(configured: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in configured.items() if name != _STOP}


def _in_common(models: Sequence[SampledModel]) -> dict[str, Any]:
    first, *rest = (_own(model.rules.defaults) for model in models)
    return {name: value for name, value in first.items() if all(name in o and o[name] == value for o in rest)}


def _is_same(name: str, effective: Sequence[Mapping[str, Any]]) -> bool:
    return all(name in each and each[name] == effective[0][name] for each in effective)


def _rules(rules: Rules, sampling: Mapping[str, Any], left_out: Sequence[str]) -> Rules:
    """Rules that send an engine this sampling, under its own names for it."""
    sent = {name: value for name, value in sampling.items() if name not in left_out}
    stops = [{_STOP: each[_STOP]} if _STOP in each else {} for each in (rules.defaults, rules.overrides)]
    return msgspec.structs.replace(rules, defaults=stops[0], overrides={**sent, **stops[1]})


def _reasons(models: Sequence[SampledModel], effective: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for each in effective for name in each)
    return [
        f"the configuration overrides {name}: "
        + ", ".join(f"{_said(each.get(name))} for {m.name}" for m, each in zip(models, effective, strict=True))
        for name in names
        if not _is_same(name, effective)
    ]


def _said(value: Any) -> str:
    return "the engine's own" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _notes(others: Sequence[str], left_out: Sequence[str]) -> list[str]:
    if not left_out:
        return []
    return [f"{', '.join(others)}: a server of others answers, with its own {', '.join(left_out)}"]
