"""What is in a folder in Hugging Face layout, and why it cannot be converted where it cannot. Blocks.

Only JSON and the headers of safetensors files are read. Weights in pickles are refused: who loads a pickle runs the
code in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.conversion.errors import FolderProblem
from backends.model_files.safetensors import BadFile, Tensor, read_header, shards

ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
# One of these is the whole tokenizer; of "vocab.json" only together with "merges.txt".
_TOKENIZERS: Final[tuple[str, ...]] = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.txt",
    "vocab.json",
    "tekken.json",
)
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_PICKLED_EXTRAS: Final = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
# Formats that models are published in by those who trained them; llama.cpp's converter reads them as they are. Others
# are what somebody made of the real weights afterwards.
_PUBLISHED_QUANTIZED: Final = ("fp8", "mxfp4", "bitnet", "compressed-tensors", "modelopt")
_PART: Final = re.compile(r"model-\d+-of-(\d+)\.safetensors")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model's folder, or a LoRA adapter's.

    `config`: the model's config.json, of an adapter its adapter_config.json. `weights`: its safetensors files;
    `tensors`: what is in them. `tokenizer_files`: names, may be empty with an adapter. `generation`: the
    generation_config.json, empty where there is none. `chat_template`: Jinja text, None where there is none.
    """

    folder: Path
    is_adapter: bool
    config: Mapping[str, Any]
    weights: tuple[Path, ...]
    tensors: Mapping[str, Tensor]
    tokenizer_files: tuple[str, ...]
    tokenizer_config: Mapping[str, Any]
    generation: Mapping[str, Any]
    chat_template: str | None

    @property
    def weights_bytes(self) -> int:
        """The size of all weights."""
        return sum(tensor.end - tensor.begin for tensor in self.tensors.values())

    @property
    def parameters(self) -> int:
        """How many numbers the weights are, as they are stored."""
        return sum(tensor.parameters for tensor in self.tensors.values())

    @property
    def largest_parameters(self) -> int:
        """How many numbers the largest tensor has."""
        return max((tensor.parameters for tensor in self.tensors.values()), default=0)

    @property
    def architecture(self) -> str | None:
        """The class that the model is of for transformers, such as "LlamaForCausalLM"; None for an adapter."""
        names = self.config.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else None

    @property
    def dtype(self) -> str | None:
        """The type of most weights as safetensors calls it ("BF16"); what config.json claims does not count."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors.values():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.parameters
        return max(sizes, key=lambda name: sizes[name], default=None)

    @property
    def context_length(self) -> int | None:
        """For how many tokens the model was made; None where the configuration does not say."""
        for config in (self.config, self.config.get("text_config")):
            for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
                value = config.get(key) if isinstance(config, dict) else None
                if type(value) is int and value > 0:
                    return value
        return None

    @property
    def base(self) -> str | None:
        """What an adapter was trained on: a folder or a name on the hub; None where it is not said."""
        value = self.config.get("base_model_name_or_path") if self.is_adapter else None
        return value if isinstance(value, str) and value else None


def read_model_folder(folder: Path) -> ModelFolder:
    """What is in the folder. Raises FolderProblem: it is not there, cannot be read, is empty or a file, has GGUF files
    or pickles for weights, lacks a part of them or the tokenizer, or is quantised already.
    """
    names = _names(folder)
    is_adapter = ADAPTER_CONFIG in names and "config.json" not in names
    config = _config(folder, names, is_adapter)
    if not is_adapter:
        _check_quantization(folder, config)
    weights = _adapter_weights(folder, names) if is_adapter else _weights(folder, names)
    tensors: dict[str, Tensor] = {}
    try:
        for file in weights:
            tensors |= read_header(file).tensors
    except BadFile as exc:
        way_out = "" if isinstance(exc.__cause__, PermissionError) else "; bring this file here again"
        raise FolderProblem(f"'{folder}' cannot be used: {exc}{way_out}") from exc
    if not tensors:
        raise FolderProblem(f"'{folder}' cannot be used: its safetensors files hold no weights")
    tokenizer = _tokenizer(names)
    if not tokenizer and not is_adapter:
        raise FolderProblem(
            f"'{folder}' has no tokenizer (tokenizer.json or tokenizer.model): copy the tokenizer's files of the model "
            "that it was trained from into it"
        )
    tokenizer_config = _optional_json(folder, names, "tokenizer_config.json")
    return ModelFolder(
        folder,
        is_adapter,
        config,
        weights,
        tensors,
        tokenizer,
        tokenizer_config,
        _optional_json(folder, names, "generation_config.json"),
        _chat_template(folder, names, tokenizer_config),
    )


def _names(folder: Path) -> frozenset[str]:
    try:
        names = frozenset(each.name for each in folder.iterdir())
    except FileNotFoundError as exc:
        raise FolderProblem(f"'{folder}' is not there: name a folder in Hugging Face layout") from exc
    except NotADirectoryError as exc:
        what = "a GGUF file, so it is converted already" if folder.suffix == ".gguf" else "a file, not a folder"
        raise FolderProblem(f"'{folder}' is {what}: name the folder in Hugging Face layout") from exc
    except OSError as exc:
        raise FolderProblem(f"'{folder}' cannot be read: {exc.strerror or exc}") from exc
    if not names:
        raise FolderProblem(f"'{folder}' is empty: name a folder in Hugging Face layout")
    return names


def _config(folder: Path, names: frozenset[str], is_adapter: bool) -> Mapping[str, Any]:
    if is_adapter:
        return _json(folder, ADAPTER_CONFIG)
    if "config.json" in names:
        return _json(folder, "config.json")
    if files := sorted(name for name in names if name.endswith(".gguf")):
        raise FolderProblem(
            f"'{folder}' holds {files[0]} and no config.json: it is a GGUF model already; serve this file, or name the "
            "folder in Hugging Face layout that it was made from"
        )
    if "params.json" in names:
        raise FolderProblem(
            f"'{folder}' is in Mistral's own layout (params.json): bring the model in Hugging Face layout, with a "
            "config.json"
        )
    inside = sorted(name for name in names if (folder / name / "config.json").is_file())
    hint = f"; '{folder / inside[-1]}' is one" if inside else ""
    raise FolderProblem(f"'{folder}' has no config.json, so it is no model's folder{hint}")


def _check_quantization(folder: Path, config: Mapping[str, Any]) -> None:
    quantization = config.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    if method is None or str(method) in _PUBLISHED_QUANTIZED:
        return
    raise FolderProblem(
        f"'{folder}' is quantised already ({method}): what that lost would only be rounded again; name the folder with "
        "the unquantised weights, or serve this one with vLLM"
    )


def _weights(folder: Path, names: frozenset[str]) -> tuple[Path, ...]:
    try:
        files = shards(folder)
    except BadFile as exc:
        raise FolderProblem(f"'{folder}' cannot be used: {exc}") from exc
    if not files:
        files = _parts_without_index(folder, names)
    missing = [file.name for file in files if file.name not in names]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FolderProblem(
            f"'{folder}' does not have {missing[0]}{more}, which its index names: bring the folder here as a whole"
        )
    if files:
        return files
    raise FolderProblem(f"'{folder}' {_no_weights(names)}")


def _parts_without_index(folder: Path, names: frozenset[str]) -> tuple[Path, ...]:
    parts = {name: int(match[1]) for name in sorted(names) if (match := _PART.fullmatch(name))}
    if parts and len(parts) != max(parts.values()):
        raise FolderProblem(
            f"'{folder}' has {len(parts)} of {max(parts.values())} parts of its weights: bring the folder here as a "
            "whole"
        )
    return tuple(folder / name for name in parts)


def _no_weights(names: frozenset[str]) -> str:
    pickles = sorted(name for name in names if name.endswith(_PICKLES) and name not in _PICKLED_EXTRAS)
    if pickles:
        return (
            f"has its weights as a pickle ({pickles[0]}): loading one runs the code that is in it, so only safetensors "
            "are read; save the model again with `save_pretrained(…, safe_serialization=True)` where you trust it"
        )
    if others := sorted(name for name in names if name.endswith(".safetensors")):
        return f"has no model.safetensors, and no index that names {others[0]}: bring the folder here as a whole"
    if files := sorted(name for name in names if name.endswith(".gguf")):
        return f"holds no safetensors, only {files[0]}: it is a GGUF model already; serve this file"
    return "holds no weights (*.safetensors)"


def _adapter_weights(folder: Path, names: frozenset[str]) -> tuple[Path, ...]:
    if ADAPTER_WEIGHTS in names:
        return (folder / ADAPTER_WEIGHTS,)
    flaw = _no_weights(names - {ADAPTER_CONFIG})
    if flaw == "holds no weights (*.safetensors)":
        flaw = f"is an adapter without weights: it has no {ADAPTER_WEIGHTS}"
    raise FolderProblem(f"'{folder}' {flaw}")


def _tokenizer(names: frozenset[str]) -> tuple[str, ...]:
    present = [name for name in _TOKENIZERS if name in names and (name != "vocab.json" or "merges.txt" in names)]
    present += sorted(name for name in names if name.endswith(".tiktoken"))
    return tuple(present)


def _chat_template(folder: Path, names: frozenset[str], tokenizer_config: Mapping[str, Any]) -> str | None:
    if "chat_template.jinja" in names:
        try:
            return (folder / "chat_template.jinja").read_text()
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) and exc.strerror else "it is not UTF-8 text"
            raise FolderProblem(f"'{folder}' cannot be used: its chat_template.jinja cannot be read: {why}") from exc
    template = tokenizer_config.get("chat_template") or _optional_json(folder, names, "chat_template.json").get(
        "chat_template"
    )
    if isinstance(template, Sequence) and not isinstance(template, str):  # several, each with a name
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _optional_json(folder: Path, names: frozenset[str], name: str) -> Mapping[str, Any]:
    return _json(folder, name) if name in names else {}


def _json(folder: Path, name: str) -> Mapping[str, Any]:
    try:
        value = json.loads((folder / name).read_bytes())
    except OSError as exc:
        raise FolderProblem(f"'{folder}' cannot be used: {name} cannot be read: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise FolderProblem(f"'{folder}' cannot be used: its {name} is not JSON") from exc
    if not isinstance(value, dict):
        raise FolderProblem(f"'{folder}' cannot be used: its {name} is not a JSON object")
    return value
