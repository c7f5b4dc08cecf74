"""Facts of an Ollama daemon and of its models, from its own responses. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from backends.endpoint import DECLARED, ModelFacts
from backends.ollama.config import OllamaConfig
from backends.ollama.names import full_name

SAFE: Final = (0, 35, 0)
# Known vulnerabilities, each with the release that closed it.
_HOLES: Final = (
    ((0, 1, 29), "CVE-2024-28224 (web pages reach it through DNS rebinding)"),
    ((0, 1, 34), "CVE-2024-37032 (a pull writes anywhere and runs code)"),
    ((0, 1, 47), "CVE-2024-45436 (an archive writes outside its folder)"),
    ((0, 17, 1), "CVE-2026-7482 (a crafted GGUF reads its memory)"),
    ((0, 35, 0), "CVE-2026-108836"),
    ((0, 35, 0), "CVE-2026-103663 (a path outside its folder runs code)"),
)
_NUM_CTX: Final = re.compile(r"^num_ctx\s+(\d+)\s*$", re.MULTILINE)
# A Modelfile names its weights by the path in the daemon's folder, where their digest is the file's name.
_FROM: Final = re.compile(r"(?m)^FROM\s+\S*sha256-([0-9a-f]{64})\s*$")
_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")

# Ollama's words for what a model can do, with ours.
_ABILITIES: Final = {
    "completion": ("chat", "completion", "json_schema"),
    "tools": ("tools",),
    "thinking": ("reasoning",),
    "vision": ("vision",),
    "embedding": ("embedding",),
}


def warning(version: str) -> str | None:
    """A sentence about the known vulnerabilities of that version; None where there are none, or it cannot be read."""
    match = _VERSION.match(version)
    if match is None:
        return None
    numbers = tuple(int(part or 0) for part in match.groups())
    if numbers >= SAFE:
        return None
    holes = ", ".join(what for fixed, what in _HOLES if numbers < fixed)
    return f"Ollama {version[:40]} has known vulnerabilities: {holes}. Install 0.35.0 or newer."


class Tag(NamedTuple):
    """What the list of models says of one: the digest of its version, and its size on disk."""

    digest: str
    size_bytes: int = 0


class LoadedModel(NamedTuple):
    """A model in memory: the bytes that it takes, and until when it is kept, as the daemon writes it."""

    memory_bytes: int = 0
    expires_at: str | None = None


def tags(listed: Any) -> dict[str, Tag] | None:
    """The models by name, from the body of `/api/tags`, decoded; None when it is not such a list."""
    try:
        return {
            str(each["name"]): Tag(str(each.get("digest", "")), _size(each.get("size"))) for each in listed["models"]
        }
    except (KeyError, TypeError, AttributeError):
        return None


def weights(show: Any) -> str | None:
    """The digest of a model's weights, from the body of its `/api/show`; None where it does not say.

    Names with the same weights share one process of the daemon's, and `/api/ps` lists only one of these names.
    """
    modelfile = show.get("modelfile") if isinstance(show, dict) else None
    match = _FROM.search(modelfile) if isinstance(modelfile, str) else None
    return match[1] if match is not None else None


def shown(config: OllamaConfig, name: str, show: Any) -> ModelFacts | None:
    """One model's facts, from the body of its `/api/show`, decoded; None when that is not an object."""
    if not isinstance(show, dict):
        return None
    listed = show.get("capabilities")
    abilities = tuple(str(each) for each in listed) if isinstance(listed, list) else None
    details = show.get("details")
    packed = details.get("quantization_level") if isinstance(details, dict) else None
    info = show.get("model_info")
    family = info.get("general.architecture") if isinstance(info, dict) else None
    num_ctx = _num_ctx(config, name, show)
    return ModelFacts(
        num_ctx=num_ctx,
        keep_alive_s=config.idle_s(),
        shift=config.shift,
        abilities=abilities,
        context_length=num_ctx,
        capabilities=of_abilities(abilities or ()),
        quantization=packed if isinstance(packed, str) and packed else None,
        architecture=family[:64] if isinstance(family, str) and family else None,
    )


def _num_ctx(config: OllamaConfig, name: str, show: Mapping[str, Any]) -> int | None:
    """The configured context length, else the Modelfile's, else the model's own, up to `max_num_ctx`."""
    by_model = {full_name(model): length for model, length in config.num_ctx_by_model.items()}
    configured = by_model.get(full_name(name), config.num_ctx)
    if configured is not None:
        return configured
    parameters = show.get("parameters")
    match = _NUM_CTX.search(parameters) if isinstance(parameters, str) else None
    if match is not None:
        return int(match[1])
    info = show.get("model_info")
    lengths = (
        [value for key, value in info.items() if key.endswith(".context_length")] if isinstance(info, dict) else []
    )
    own = next((value for value in lengths if isinstance(value, int) and value > 0), config.max_num_ctx)
    return min(own, config.max_num_ctx)


def loaded(running: Any) -> dict[str, LoadedModel]:
    """The models in memory by their full names, from the body of `/api/ps`, decoded."""
    models: dict[str, LoadedModel] = {}
    entries = running.get("models") if isinstance(running, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            until = entry.get("expires_at")
            expires_at = until[:40] if isinstance(until, str) and until else None
            models[full_name(entry["name"])] = LoadedModel(_size(entry.get("size")), expires_at)
    return models


def _size(value: Any) -> int:
    """A size in bytes; 0 where the daemon does not give one."""
    return value if isinstance(value, int) and 0 <= value < 1 << 63 else 0


def of_abilities(abilities: Iterable[str]) -> dict[str, str]:
    """Capabilities by the names of CAPABILITIES, from Ollama's words."""
    return {name: DECLARED for ability in abilities for name in _ABILITIES.get(ability, ())}


# What the daemon draws with where neither a request nor a Modelfile says anything; and as vLLM calls it.
_DRAWN: Final = {
    "temperature": ("temperature", 0.8),
    "top_k": ("top_k", 40.0),
    "top_p": ("top_p", 0.9),
    "min_p": ("min_p", 0.0),
    "repeat_penalty": ("repetition_penalty", 1.0),
}
_NUMBER: Final = re.compile(r"^(\w+)\s+(-?\d+(?:\.\d+)?)\s*$", re.MULTILINE)


def sampling(show: Any) -> dict[str, float] | None:
    """What answers are drawn with when a request says nothing, by vLLM's names, from the body of `/api/show`, decoded;
    None where it is not an object.
    """
    if not isinstance(show, dict):
        return None
    parameters = show.get("parameters")
    said = dict(_NUMBER.findall(parameters)) if isinstance(parameters, str) else {}
    return {ours: float(said.get(theirs, default)) for theirs, (ours, default) in _DRAWN.items()}


_STOP: Final = re.compile(r'^stop\s+(?:"((?:[^"\\]|\\.)*)"|(\S+))\s*$', re.MULTILINE)


def stops(show: Any) -> tuple[str, ...]:
    """The texts that end a model's answers beside its own tokens, from the body of `/api/show`, decoded."""
    parameters = show.get("parameters") if isinstance(show, dict) else None
    matches = _STOP.findall(parameters) if isinstance(parameters, str) else []
    return tuple(quoted.replace('\\"', '"').replace("\\\\", "\\") or bare for quoted, bare in matches)


def has_template(show: Any) -> bool | None:
    """Whether a model has a template that says more than its prompt, from the body of `/api/show`, decoded."""
    template = show.get("template") if isinstance(show, dict) else None
    return template.strip() not in ("", "{{ .Prompt }}") if isinstance(template, str) else None
