"""The configuration that serves what LLaMA-Factory's arguments ask for, as the tree of a `modelport.yaml`. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.llamafactory.arguments import Arguments
from app.llamafactory.engine_choice import EngineChoice, FineTune
from backends.vllm.argv import LORA_RANKS, SWITCHES, VALUES

DEFAULT_NAME: Final = "gpt-3.5-turbo"
SLOTS: Final = 4
# The gateway's own, or what would put prompts into a log.
_DROPPED: Final = frozenset(
    {"enable_log_requests", "disable_log_requests", "disable_log_stats", "enable_lora", "model"}
)
# Of vLLM's environment: each start has its own.
_OURS: Final = frozenset({"VLLM_API_KEY", "VLLM_PORT"})
_YES: Final = frozenset({"true", "y", "1"})


@dataclass(frozen=True, slots=True)
class ServedParts:
    """What was made ready for the engine. `model`: its folder, file or name on the hub; `adapter`: the folder of the
    adapter that it loads; `chat_template`: a Jinja file in place of the model's own; `generation_config`: a folder with
    a `generation_config.json` that names all stop tokens; `stops`: the texts that end an answer; `tool_parser`: vLLM's,
    for calls of tools.
    """

    model: str
    adapter: str | None = None
    chat_template: str | None = None
    generation_config: str | None = None
    stops: tuple[str, ...] = ()
    tool_parser: str | None = None


@dataclass(frozen=True, slots=True)
class ServingMachine:
    """What decides beside the arguments: the environment, and how many GPUs may be used. `is_cpu_only`: it has no
    accelerator at all.
    """

    env: Mapping[str, str]
    gpus: int = 0
    is_cpu_only: bool = False

    @property
    def model_name(self) -> str:
        """The name that is listed (API_MODEL_NAME)."""
        return self.env.get("API_MODEL_NAME") or DEFAULT_NAME

    def is_on(self, variable: str) -> bool:
        """Whether a variable is set to true, as LLaMA-Factory reads it."""
        return self.env.get(variable, "").lower() in _YES


def sampling(arguments: Arguments) -> dict[str, Any]:
    """What a request without these parameters gets. `min_p` 0: LLaMA-Factory has none, and engines have defaults."""
    values: dict[str, Any] = {
        "temperature": arguments["temperature"] if arguments["do_sample"] else 0.0,
        "top_p": arguments["top_p"] or 1.0,
        "top_k": arguments["top_k"] or -1,
        "min_p": 0.0,
        "repetition_penalty": arguments["repetition_penalty"] or 1.0,
    }
    if arguments["max_new_tokens"] > 0:
        values["max_tokens"] = arguments["max_new_tokens"]
    return values


def context_length(arguments: Arguments, model: FineTune) -> int:
    """Tokens of prompt and answer together: the flag's, and its default not beyond the model's own."""
    name = "sglang_maxlen" if arguments["infer_backend"] == "sglang" else "vllm_maxlen"
    own = model.context_length
    return int(arguments[name] if arguments.is_given(name) or own is None else min(arguments[name], own))


def configuration(
    arguments: Arguments, choice: EngineChoice, parts: ServedParts, model: FineTune, machine: ServingMachine
) -> dict[str, Any]:
    """The tree: one backend, one model with the listed name, to which every unknown name leads."""
    public = machine.model_name
    backend = re.sub(r"[^A-Za-z0-9._-]+", "-", public).strip("-.") or "model"
    if choice.kind == "vllm":
        entry = _vllm(arguments, choice, parts, model, machine)
    else:
        entry = _embedded(arguments, parts, model, machine)
    served: dict[str, Any] = {"backend": backend}
    if parts.adapter is not None:
        name = adapter_name(parts.adapter, public)
        entry["adapters"] = {name: parts.adapter}
        served["model"] = name
    served["defaults"] = sampling(arguments)
    if parts.stops:
        served["defaults"]["stop"] = list(parts.stops)
    tree: dict[str, Any] = {
        "backends": {backend: entry},
        "models": {public: served},
        "default_model": public,
    }
    if machine.env.get("API_KEY"):
        # As LLaMA-Factory's: pages of every origin, once a key is needed.
        tree["server"] = {"cors_origins": ["*"]}
    made = {key: _escaped(value) for key, value in tree.items()}
    if arguments.is_given("hf_hub_token") and choice.kind == "vllm":
        # Its value stays in the environment, where the verb has put it.
        made["backends"][backend].setdefault("env", {})["HF_TOKEN"] = "${HF_TOKEN:-}"  # noqa: S105
    return made


def adapter_name(path: str, public: str) -> str:
    """The adapter's own public name: its folder's, unless the model is listed by that."""
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1] or "adapter"
    return f"{name}-adapter" if name == public else name


def _vllm(
    arguments: Arguments, choice: EngineChoice, parts: ServedParts, model: FineTune, machine: ServingMachine
) -> dict[str, Any]:
    entry: dict[str, Any] = {"kind": "vllm", "model": parts.model, "command": list(choice.command)}
    if choice.task != "generate":
        entry["task"] = choice.task
    if arguments["model_revision"] != "main":
        entry["revision"] = arguments["model_revision"]
    dtype = "float16" if model.is_gptq and arguments["infer_dtype"] == "auto" else arguments["infer_dtype"]
    if dtype != "auto":
        entry["dtype"] = dtype
    entry["max_model_len"] = context_length(arguments, model)
    is_sglang = arguments["infer_backend"] == "sglang"
    entry["gpu_memory_utilization"] = arguments["sglang_mem_fraction" if is_sglang else "vllm_gpu_util"]
    workers = arguments["sglang_tp_size"] if is_sglang and arguments["sglang_tp_size"] > 0 else machine.gpus
    if workers > 1:
        entry["tensor_parallel_size"] = workers
    entry |= {name: True for name, flag in _SWITCHED.items() if arguments[flag]}
    if parts.chat_template is not None:
        entry["chat_template"] = parts.chat_template
    if parts.tool_parser is not None:
        entry["tool_call_parser"] = parts.tool_parser
    words = [f"--generation-config={parts.generation_config}"] if parts.generation_config is not None else []
    if arguments["cache_dir"] is not None:
        words.append(f"--download-dir={arguments['cache_dir']}")
    if parts.adapter is not None:
        words.append(f"--max-lora-rank={_rank(max(arguments['vllm_max_lora_rank'], model.lora_rank or 0))}")
    settings, more = engine_arguments(arguments["vllm_config"] or {})
    entry |= settings
    if machine.is_cpu_only and not _sizes_cache(arguments, entry, machine):
        del entry["gpu_memory_utilization"]
        entry["kv_cache_memory_bytes"] = cpu_cache_bytes(model, entry["max_model_len"])
    if words := [*words, *more]:
        entry["args"] = words
    if env := dict(_environment(arguments, machine)):
        entry["env"] = env
    return entry


def _sizes_cache(arguments: Arguments, entry: Mapping[str, Any], machine: ServingMachine) -> bool:
    """Whether somebody has said how much memory the KV cache may have."""
    is_share = any(arguments.is_given(name) for name in ("vllm_gpu_util", "sglang_mem_fraction"))
    is_in_config = "gpu_memory_utilization" in (arguments["vllm_config"] or {}) or "kv_cache_memory_bytes" in entry
    return is_share or is_in_config or "VLLM_CPU_KVCACHE_SPACE" in machine.env


def cpu_cache_bytes(model: FineTune, tokens: int) -> int:
    """The size of a KV cache in the host's memory, where a share of it would be most of the machine: for eight requests
    of full length, from 256 MiB to 4 GiB, and never less than one of them takes.
    """
    config = model.config
    heads = config.get("num_attention_heads") or 0
    width = config.get("head_dim") or (config.get("hidden_size") or 0) // max(1, heads)
    numbers = (config.get("num_hidden_layers") or 0, config.get("num_key_value_heads") or heads, width)
    size = _ELEMENT_BYTES.get(str(config.get("dtype") or config.get("torch_dtype")), 2)
    one = 2 * size * tokens * math.prod(number if isinstance(number, int) else 0 for number in numbers)
    return max(min(8 * one, 4 << 30), one, 256 << 20)


_ELEMENT_BYTES: Final = {"float32": 4}
_SWITCHED: Final = {"enforce_eager": "vllm_enforce_eager", "trust_remote_code": "trust_remote_code"}


def _rank(needed: int) -> int:
    return next((rank for rank in LORA_RANKS if rank >= needed), LORA_RANKS[-1])


def engine_arguments(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The members of `--vllm_config` as settings of the backend, and the rest as vLLM's arguments."""
    settings: dict[str, Any] = {}
    words: list[str] = []
    for key, value in given.items():
        name = key.replace("-", "_")
        if name in _DROPPED or value is None:
            continue
        flag = f"--{name.replace('_', '-')}"
        if name in VALUES or name in SWITCHES or name in ("override_generation_config", "allowed_media_domains"):
            settings[name] = value
        elif isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list):
            words += [flag, *map(str, value)]
        else:
            words.append(f"{flag}={json.dumps(value) if isinstance(value, dict) else value}")
    return settings, words


def _environment(arguments: Arguments, machine: ServingMachine) -> Iterator[tuple[str, str]]:
    """What vLLM finds in its environment: the user's own variables for it, as it would have found them there."""
    for name, value in sorted(machine.env.items()):
        if name.startswith("VLLM_") and name not in _OURS:
            yield name, value
    if arguments["cache_dir"] is not None:
        yield "HF_HUB_CACHE", arguments["cache_dir"]
    if machine.is_on("USE_MODELSCOPE_HUB"):
        yield "VLLM_USE_MODELSCOPE", "True"


def _embedded(arguments: Arguments, parts: ServedParts, model: FineTune, machine: ServingMachine) -> dict[str, Any]:
    entry: dict[str, Any] = {"kind": "llama_cpp", "model": parts.model}
    entry["context_length"] = context_length(arguments, model)
    slots = machine.env.get("MAX_CONCURRENT", "")
    entry["slots"] = int(slots) if slots.isdecimal() and int(slots) > 0 else SLOTS
    if parts.chat_template is not None:
        entry["chat_template"] = parts.chat_template
    return entry


def _escaped(value: Any) -> Any:
    """The tree with each `${` written so that it does not begin a variable."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value.replace("${", "$${") if isinstance(value, str) else value
