"""Which engine serves what LLaMA-Factory would have served, and what none of them can. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from app.llamafactory.arguments import Arguments, BadArguments

_GET_VLLM: Final = "put its `bin` folder on PATH, or name the program with --vllm-command (or MODELPORT_VLLM)"
_LLAMA: Final = "--infer_backend llama_cpp converts the model to a GGUF file and serves it without vLLM"
_REWARDS: Final = ("ForSequenceClassification", "ForRewardModel")
# Bits of `--quantization_bit` → the type of a converted file.
_QUANTS: Final = {4: "q4_k_m", 8: "q8_0"}
DEFAULT_OUTTYPE: Final = "q8_0"


@dataclass(frozen=True, slots=True)
class FineTune:
    """What is known of the model before an engine sees it. `config`: its `config.json`, empty where it is not here.

    `is_here`: a folder or a file of this machine, not a name on the hub. `lora_rank`: of the adapter.
    """

    is_gguf: bool = False
    is_here: bool = True
    config: Mapping[str, Any] = field(default_factory=dict)
    lora_rank: int | None = None

    @property
    def context_length(self) -> int | None:
        """The model's own, in tokens; None where its file does not say."""
        value = self.config.get("max_position_embeddings")
        return value if isinstance(value, int) and value > 0 else None

    @property
    def is_gptq(self) -> bool:
        """Whether its weights are packed by GPTQ, which computes in float16."""
        quantization = self.config.get("quantization_config")
        return isinstance(quantization, dict) and quantization.get("quant_method") == "gptq"

    @property
    def is_reward_model(self) -> bool:
        """Whether it is a reward model of an architecture that vLLM scores with."""
        names = self.config.get("architectures")
        return isinstance(names, list) and any(str(name).endswith(_REWARDS) for name in names)


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """`kind`: the engine. `command`: vLLM's words. `outtype`: of the file that a folder is converted to.

    `merges`: whether the adapters become part of the weights first. `task`: as backends have it. `notes`: sentences.
    """

    kind: Literal["vllm", "llama_cpp"]
    command: tuple[str, ...] = ()
    outtype: str = DEFAULT_OUTTYPE
    merges: bool = False
    task: Literal["generate", "classify"] = "generate"
    notes: tuple[str, ...] = ()


def choose(
    arguments: Arguments, model: FineTune, vllm: Sequence[str] | None, *, outtype: str | None = None
) -> EngineChoice:
    """The engine for these arguments; BadArguments says what cannot be served, and how it can.

    `vllm`: the words that call vLLM, None where it was not found. `outtype`: the type that was asked for.
    """
    if errors := list(_impossible(arguments, model)):
        raise BadArguments(*errors)
    wanted = arguments["infer_backend"]
    adapters = paths(arguments["adapter_name_or_path"])
    notes = []
    if arguments["stage"] not in ("sft", "rm"):
        notes.append(f"--stage {arguments['stage']}: the model is served as one that writes text")
    if wanted == "llama_cpp" or (model.is_gguf and wanted == "huggingface"):
        bits = arguments["quantization_bit"]
        return EngineChoice(
            "llama_cpp",
            outtype=(outtype or _QUANTS.get(bits, DEFAULT_OUTTYPE)).lower(),
            merges=bool(adapters),
            notes=tuple(notes),
        )
    if vllm is None:
        raise BadArguments(_missing(wanted))
    if wanted != "vllm":
        notes.append(f"--infer_backend {wanted}: served by vLLM")
    return EngineChoice(
        "vllm",
        tuple(vllm),
        merges=len(adapters) > 1,
        task="classify" if arguments["stage"] == "rm" else "generate",
        notes=tuple(notes),
    )


def _missing(wanted: str) -> str:
    begin = "" if wanted == "vllm" else f"--infer_backend {wanted} is served by vLLM here, and "
    end = "vLLM was not found" if begin else "vLLM was not found for --infer_backend vllm"
    return f"{begin}{end}: {_GET_VLLM}; {_LLAMA}"


def _impossible(arguments: Arguments, model: FineTune) -> list[str]:
    errors = []
    wanted, path = arguments["infer_backend"], arguments["model_name_or_path"]
    is_embedded = wanted == "llama_cpp" or (model.is_gguf and wanted == "huggingface")
    adapters = paths(arguments["adapter_name_or_path"])
    if model.is_gguf and not is_embedded:
        errors.append(f"--model_name_or_path: '{path}' is a GGUF file: --infer_backend llama_cpp serves it")
    if model.is_gguf and adapters:
        errors.append(
            f"--adapter_name_or_path: '{path}' is a GGUF file, and adapters are merged before a model is converted: "
            "name the model's folder"
        )
    if not model.is_here and is_embedded:
        errors.append(
            f"--model_name_or_path: '{path}' is not on this machine: name the folder that it was downloaded to"
        )
    if adapters and arguments["finetuning_type"] != "lora":
        errors.append(f"--adapter_name_or_path: --finetuning_type {arguments['finetuning_type']} has no adapters: lora")
    if arguments["quantization_bit"] is not None and not is_embedded:
        errors.append(
            "--quantization_bit: vLLM does not quantise while it loads (it takes GPTQ, AWQ and FP8 folders): "
            "--infer_backend llama_cpp does, when it converts the model"
        )
    elif is_embedded and arguments["quantization_bit"] not in (None, *_QUANTS):
        errors.append("--quantization_bit: 4 and 8 are possible; --outtype names other types")
    if arguments["rope_scaling"] is not None:
        errors.append(
            "--rope_scaling: write it into the model's config.json (`rope_scaling`), or into --vllm_config as "
            "`hf_overrides`"
        )
    if arguments["stage"] == "rm":
        errors += _no_reward(model, path, is_embedded=is_embedded)
    return errors


def _no_reward(model: FineTune, path: str, *, is_embedded: bool) -> list[str]:
    if is_embedded:
        return ["--stage rm: the embedded engine has no reward models; vLLM has"]
    if not model.is_reward_model:
        return [
            f"--stage rm: '{path}' is not a reward model that vLLM knows (an architecture …ForSequenceClassification): "
            "a value head beside a language model, as LLaMA-Factory trains it, is served by none of the engines here"
        ]
    return []


def paths(text: str | None) -> tuple[str, ...]:
    """The folders in a value with commas."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())
