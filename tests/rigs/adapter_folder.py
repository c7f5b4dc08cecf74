"""Writes adapters (LoRA) for a base model: sound ones, and each with one planted fault."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Final

from backends.model_files.safetensors import read_headers
from tests.rigs.safetensors_file import Weights, write

PREFIX: Final = "base_model.model."
Tensors = dict[str, Weights]
Config = dict[str, Any]
Change = Callable[[Tensors, Config], None]


def drawn(shape: Sequence[int], scale: float, seed: object) -> Weights:
    """Normally distributed numbers in float32: the same for the same seed."""
    chance = random.Random(str(seed))
    return Weights("F32", tuple(shape), struct.pack(f"<{prod(shape)}f", *_normal(chance, prod(shape), scale)))


def _normal(chance: random.Random, count: int, scale: float) -> list[float]:
    return [chance.gauss(0.0, scale) for _ in range(count)]


def full(shape: Sequence[int], value: float) -> Weights:
    """The same number everywhere, in float32."""
    return Weights("F32", tuple(shape), struct.pack("<f", value) * prod(shape))


def base_model(folder: Path, *, layers: int = 2, hidden: int = 8, path: str = "model.layers") -> Path:
    """A folder with the smallest base model that adapters can be held against."""
    tensors: Tensors = {"model.embed_tokens.weight": full((16, hidden), 0.5)}
    for layer in range(layers):
        tensors[f"{path}.{layer}.self_attn.q_proj.weight"] = full((hidden, hidden), 0.5)
        tensors[f"{path}.{layer}.self_attn.v_proj.weight"] = full((hidden // 2, hidden), 0.5)
        tensors[f"{path}.{layer}.mlp.down_proj.weight"] = full((hidden, 2 * hidden), 0.5)
    write(folder / "model.safetensors", tensors)
    config = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": layers, "hidden_size": hidden}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def adapter(
    folder: Path,
    base: Path,
    *changes: Change,
    modules: Sequence[str] = ("q_proj", "v_proj"),
    rank: int = 4,
    scale: float = 0.1,
    seed: int = 0,
) -> Path:
    """A folder with an adapter for all layers of the base, then with these changes. `scale`: of its numbers."""
    config: Config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(modules),
        "base_model_name_or_path": str(base),
    }
    tensors: Tensors = {}
    for name, weight in sorted(read_headers(base).items()):
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] in modules:
            out, into = weight.shape
            tensors[f"{PREFIX}{module}.lora_A.weight"] = drawn((rank, into), scale, (seed, module, "A"))
            tensors[f"{PREFIX}{module}.lora_B.weight"] = drawn((out, rank), scale, (seed, module, "B"))
    for change in changes:
        change(tensors, config)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    write(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    return folder


def _renamed(tensors: Tensors, rename: Callable[[str], str]) -> None:
    renamed = {rename(name): tensor for name, tensor in tensors.items()}
    tensors.clear()
    tensors.update(renamed)


def foreign_path(tensors: Tensors, config: Config) -> None:
    """The layers of another family's naming."""
    _renamed(tensors, lambda name: name.replace("model.layers.", "transformer.h."))


def layers_beyond(tensors: Tensors, config: Config) -> None:
    """All of its layers are behind the base's last one."""
    _renamed(tensors, lambda name: name.replace("model.layers.", "model.layers.10"))


def zeros(tensors: Tensors, config: Config) -> None:
    """It was never trained: B is zero, as PEFT begins."""
    tensors.update({name: full(each.shape, 0.0) for name, each in tensors.items() if "lora_B" in name})


def nan(tensors: Tensors, config: Config) -> None:
    """Its training went wrong."""
    name = next(name for name in tensors if "lora_B" in name)
    tensors[name] = full(tensors[name].shape, math.nan)


def other_base(tensors: Tensors, config: Config) -> None:
    """It was trained on a model with wider layers."""
    for name, each in tensors.items():
        rows, columns = each.shape
        shape = (rows, 2 * columns) if "lora_A" in name else (2 * rows, columns)
        tensors[name] = drawn(shape, 0.1, name)


def modules_to_save(tensors: Tensors, config: Config) -> None:
    """The head was trained in full."""
    config["modules_to_save"] = ["lm_head"]
    tensors[f"{PREFIX}lm_head.weight"] = drawn((8, 8), 0.1, "head")


def dora(tensors: Tensors, config: Config) -> None:
    """DoRA: a magnitude for each row besides."""
    config["use_dora"] = True
    for name in [name for name in tensors if "lora_B" in name]:
        magnitude = name.replace("lora_B.weight", "lora_magnitude_vector")
        tensors[magnitude] = drawn((tensors[name].shape[0],), 0.1, name)


def below_rounding(tensors: Tensors, config: Config) -> None:
    """Sound, but its numbers are so small that adding what they give changes nothing."""
    tensors.update({name: drawn(each.shape, 1e-9, name) for name, each in tensors.items() if "lora_B" in name})


def huge(tensors: Tensors, config: Config) -> None:
    """All finite, and so large that what is computed with them is not."""
    tensors.update({name: full(each.shape, 3e38) for name, each in tensors.items()})


def cut(folder: Path) -> None:
    """Half of the weights' file is there."""
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def planted(folder: Path, base: Path) -> Mapping[str, Path]:
    """Ten adapters for this base, each with one fault, in folders named after it."""
    changes: Mapping[str, Change] = {
        "foreign_path": foreign_path,
        "layers_beyond": layers_beyond,
        "zeros": zeros,
        "nan": nan,
        "other_base": other_base,
        "modules_to_save": modules_to_save,
        "dora": dora,
        "below_rounding": below_rounding,
    }
    made = {name: adapter(folder / name, base, change) for name, change in changes.items()}
    made["rank"] = adapter(folder / "rank", base, rank=64)
    made["half_file"] = adapter(folder / "half_file", base)
    cut(made["half_file"])
    return made
