"""What is to be registered, and the names that it gets. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Takes = Literal["folder", "adapter", "file", "daemon"]


@dataclass(frozen=True, slots=True)
class ServingOrder:
    """One engine that is to serve it. `name`: the public name; `engine`: what the engine is called in names and texts.

    `takes`: the folder in Hugging Face layout, the folder of an adapter, a GGUF file, or a model in a daemon at `url`.
    """

    name: str
    engine: str
    takes: Takes
    url: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """What the command was given, all of it resolved. `base`: of an adapter, the folder or the hub's name of its base.

    `context`: tokens of context that were asked for; None: the model's own.
    """

    name: str
    source: Path
    config: Path
    servings: tuple[ServingOrder, ...]
    outtype: str
    is_adapter: bool = False
    base: str | None = None
    context: int | None = None
    replace: bool = False


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """How answers are chosen where a request does not say it, and what ends them.

    `texts`: those of the `stops` that are no token of the tokenizer's.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    stops: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Artifact:
    """What one serving is given. `path`: the folder or file; `model`: the daemon's own name for it.

    `template`: a Jinja file to serve in place of the model's own; `generation`: a folder with a generation_config.json
    that ends answers where they were trained to end; None each: the model's own serves.
    """

    path: Path
    model: str = ""
    template: Path | None = None
    generation: Path | None = None


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """A value for the configuration file, by its path of keys. `is_shared`: it serves others too, once it is there."""

    keys: tuple[str, ...]
    value: Any
    is_shared: bool = False


def public_names(name: str, engines: Sequence[str]) -> dict[str, str]:
    """The public name by engine: the first engine has the name itself, each other one `NAME-ENGINE`."""
    return {engine: name if not index else f"{name}-{engine}" for index, engine in enumerate(engines)}


def slug(name: str) -> str:
    """The name with nothing but letters, digits, `_`, `.` and `-`, for files and the daemon's models."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "model"


# How each sampling parameter is called in a generation_config.json, what it is where that names none, and what it is
# called by an Ollama daemon. Without this an engine would take defaults of its own.
NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
_DAEMON = {"repetition_penalty": "repeat_penalty"}


def sampling_of(generation: Mapping[str, Any], stops: Sequence[str], texts: Sequence[str] = ()) -> SamplingDefaults:
    """What a generation_config.json says, as vLLM reads it: what it does not name has no effect."""
    values: dict[str, float] = {}
    for name, neutral in NEUTRAL.items():
        value = generation.get(name)
        values[name] = value if isinstance(value, int | float) and not isinstance(value, bool) else neutral
    if values["top_k"] <= 0:
        values["top_k"] = -1
    if values["top_p"] <= 0:
        values["top_p"] = 1.0
    return SamplingDefaults(values, tuple(dict.fromkeys(stops)), tuple(texts))


def daemon_parameters(sampling: SamplingDefaults, num_ctx: int | None) -> dict[str, Any]:
    """The parameters of a daemon's model."""
    parameters: dict[str, Any] = {"stop": list(sampling.stops)} if sampling.stops else {}
    for name, value in sampling.values.items():
        parameters[_DAEMON.get(name, name)] = max(value, 0) if name == "top_k" else value
    return parameters | ({"num_ctx": num_ctx} if num_ctx is not None else {})


def stop_ids_to_add(
    stops: Sequence[str], ids: Mapping[str, int], generation: Mapping[str, Any], eos: str | None
) -> tuple[list[int], list[str]]:
    """The tokens that end an answer and that the model's own files do not name, and the stops that are no token.

    `ids`: tokens by text; `eos`: the tokenizer's end of text, at which every engine stops anyway.
    """
    named = generation.get("eos_token_id")
    known = {named} if isinstance(named, int) else set(named) if isinstance(named, list) else set()
    missing = [ids[text] for text in stops if text in ids and text != eos and ids[text] not in known]
    return missing, [text for text in stops if text not in ids and text != eos]


def merged_generation(generation: Mapping[str, Any], more: Sequence[int], eos_id: int | None) -> dict[str, Any]:
    """The generation_config.json with more tokens that end an answer."""
    named = generation.get("eos_token_id")
    known = [named] if isinstance(named, int) else list(named) if isinstance(named, list) else []
    first = [eos_id] if eos_id is not None and not known else []
    return {**generation, "eos_token_id": list(dict.fromkeys([*first, *known, *more]))}
