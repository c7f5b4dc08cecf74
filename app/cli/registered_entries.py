"""What `modelport register` writes into the configuration file for each kind of engine. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from app.registration.config_step import at, is_ours
from app.registration.journal import Made
from app.registration.order import NEUTRAL, Artifact, ConfigEntry, Order, SamplingDefaults, ServingOrder, slug

_CACHE_LEAST: Final = 256 << 20
_CACHE_MOST: Final = 4 << 30


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How vLLM is to be run here: its `command`, its `env`, and settings that were asked for or are needed here."""

    command: str | Sequence[str] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Situation:
    """What the entries depend on beside the order: the configuration as it is, what this registration made before, and
    how to read a template file (None: it cannot be read).
    """

    tree: Mapping[str, Any]
    made: Sequence[Made]
    settings: EngineSettings
    read: Callable[[str], str | None]


def entries(
    serving: ServingOrder, artifact: Artifact, order: Order, sampling: SamplingDefaults, now: Situation
) -> list[ConfigEntry]:
    """What the file needs for this serving, backends first."""
    match serving.takes:
        case "daemon":
            return _of_daemon(serving, artifact, now)
        case "file":
            return _of_file(serving, artifact, order, sampling, now)
        case "adapter":
            return _of_adapter(serving, artifact, order, sampling, now)
        case "folder":
            backend = _free_name(serving.name, now)
            settings = _vllm(str(artifact.path), artifact, order, now)
            return [ConfigEntry(("backends", backend), settings), _model(serving.name, backend, sampling.texts)]


def _of_daemon(serving: ServingOrder, artifact: Artifact, now: Situation) -> list[ConfigEntry]:
    backends = at(now.tree, ("backends",)) or {}
    for name, backend in backends.items():
        if isinstance(backend, Mapping) and backend.get("kind") == "ollama" and _url_of(backend) == serving.url:
            entry = ConfigEntry(("backends", str(name)), dict(backend), is_shared=True)
            break
    else:
        name = "ollama" if "ollama" not in backends else _free_name("ollama", now)
        entry = ConfigEntry(("backends", name), {"kind": "ollama", "url": serving.url}, is_shared=True)
    return [entry, ConfigEntry(("models", serving.name), {"backend": entry.keys[1], "model": artifact.model})]


def _url_of(backend: Mapping[str, Any]) -> str:
    return str(backend.get("url") or "http://127.0.0.1:11434").rstrip("/")


def _of_file(
    serving: ServingOrder, artifact: Artifact, order: Order, sampling: SamplingDefaults, now: Situation
) -> list[ConfigEntry]:
    backend = _free_name(serving.name, now)
    settings: dict[str, Any] = {"kind": "llama_cpp", "model": str(artifact.path)}
    if order.context is not None:
        settings["context_length"] = order.context
    defaults = {name: value for name, value in sampling.values.items() if name in NEUTRAL}
    return [ConfigEntry(("backends", backend), settings), _model(serving.name, backend, sampling.stops, defaults)]


def _of_adapter(
    serving: ServingOrder, artifact: Artifact, order: Order, sampling: SamplingDefaults, now: Situation
) -> list[ConfigEntry]:
    """An engine that has the same base and template takes one adapter more; else there is one more engine."""
    assert order.base is not None
    for name, backend in (at(now.tree, ("backends",)) or {}).items():
        is_made = is_ours(now.made, ("backends", str(name)), backend)
        if not is_made and isinstance(backend, Mapping) and _can_take(backend, artifact, order.base, now):
            return [ConfigEntry(("backends", str(name), "adapters", serving.name), str(artifact.path))]
    backend = _free_name(serving.name, now)
    settings = _vllm(order.base, artifact, order, now)
    return [ConfigEntry(("backends", backend), {**settings, "adapters": {serving.name: str(artifact.path)}})]


def _can_take(backend: Mapping[str, Any], artifact: Artifact, base: str, now: Situation) -> bool:
    """Whether this entry is a vLLM with that base which says prompts as the adapter was trained."""
    if backend.get("kind") != "vllm" or artifact.generation is not None:
        return False
    model = str(backend.get("model"))
    same = model == base or (Path(model).expanduser().is_dir() and Path(model).expanduser().resolve() == Path(base))
    template = backend.get("chat_template")
    has = now.read(str(template)) if template is not None else None
    wanted = now.read(str(artifact.template)) if artifact.template is not None else None
    return same and has == wanted and (template is None) == (artifact.template is None)


def _vllm(model: str, artifact: Artifact, order: Order, now: Situation) -> dict[str, Any]:
    settings: dict[str, Any] = {"kind": "vllm", "model": model}
    if now.settings.command is not None:
        command = now.settings.command
        settings["command"] = command if isinstance(command, str) else list(command)
    if artifact.template is not None:
        settings["chat_template"] = str(artifact.template)
    if order.context is not None:
        settings["max_model_len"] = order.context
    settings |= now.settings.more
    if artifact.generation is not None:
        args = settings.get("args") or []
        words = args.split() if isinstance(args, str) else list(args)
        settings["args"] = [*words, f"--generation-config={artifact.generation}"]
    if now.settings.env:
        settings["env"] = {**now.settings.env, **(settings.get("env") or {})}
    return settings


def _model(name: str, backend: str, stops: Sequence[str], defaults: Mapping[str, float] | None = None) -> ConfigEntry:
    values: dict[str, Any] = dict(defaults or {})
    if stops:
        values["stop"] = list(stops)
    return ConfigEntry(("models", name), {"backend": backend} | ({"defaults": values} if values else {}))


def _free_name(name: str, now: Situation) -> str:
    """The name for a backend: the public name, numbered where somebody else's backend has it."""
    backends = at(now.tree, ("backends",)) or {}
    stem = slug(name)
    candidate, number = stem, 2
    while candidate in backends and not is_ours(now.made, ("backends", candidate), backends[candidate]):
        candidate, number = f"{stem}-{number}", number + 1
    return candidate


def settings_here(
    tree: Mapping[str, Any], command: str | None, program: str | None, more: Mapping[str, Any]
) -> EngineSettings:
    """How vLLM is run here: `command` as asked for; else as the first vLLM in the file is, with its `env`; else the
    `program` that is on the PATH. A command on the PATH need not be written down.
    """
    for backend in (at(tree, ("backends",)) or {}).values():
        if isinstance(backend, Mapping) and backend.get("kind") == "vllm":
            env = backend.get("env")
            return EngineSettings(command or backend.get("command"), env if isinstance(env, dict) else {}, more)
    return EngineSettings(command or (None if program is not None else "vllm"), {}, more)


def without_gpu(config: Mapping[str, Any], context: int | None) -> dict[str, Any]:
    """The settings with which vLLM serves this model on a processor: exact arithmetic that every processor has, and a
    cache for two requests of full length, 256 MiB to 4 GiB; without its size vLLM takes nine tenths of the memory.

    `config`: the model's config.json.
    """

    def number(key: str, default: int) -> int:
        value = config.get(key, default)
        return value if isinstance(value, int) and value > 0 else default

    heads = number("num_attention_heads", 1)
    width = number("head_dim", number("hidden_size", 4096) // heads)
    per_token = number("num_hidden_layers", 32) * 2 * number("num_key_value_heads", heads) * width * 4
    length = context or number("max_position_embeddings", 4096)
    size = min(max(2 * length * per_token, _CACHE_LEAST), _CACHE_MOST)
    settings: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "kv_cache_memory_bytes": size}
    if length * per_token > size:
        settings["max_model_len"] = size // per_token // 16 * 16
    return settings
