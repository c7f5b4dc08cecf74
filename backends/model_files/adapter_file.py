"""Whether an adapter (LoRA, as PEFT writes it) can do on a base model what it was trained for, told from files alone.

vLLM 0.32 loads without a word an adapter whose names lead nowhere or whose numbers are zero, and then answers as the
base; one with a NaN spoils the answers of the base and of every other adapter too. So all that files can tell is told
before the engine sees them. What vLLM takes is what its own code for LoRA takes (its package `vllm.lora`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from backends.model_files.adapter_settings import MERGE, NO_WEIGHTS, as_integer, base_named, settings_flaw
from backends.model_files.safetensors import BadFile, Tensor, read_header, read_headers
from backends.model_files.values import Values, look

WEIGHTS: Final = "adapter_model.safetensors"
_PREFIX: Final = "base_model.model."
_PART: Final = re.compile(r"(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B)(?:\.weight)?")
_LAYER: Final = re.compile(r"(?:(.+)\.)?(layers|layer|h|blocks|block)\.(\d+)\.(.+)")
# Parts of a path that families add or leave out, so that one of them more or less is no other module.
_WRAPPERS: Final = frozenset({"model", "language_model", "transformer"})
_HEADS: Final = (".score.weight", ".score.bias", ".classifier.weight", ".classifier.bias")  # vLLM takes one of these
_FLOATS: Final = frozenset({"BF16", "F16", "F32", "F64", "F8_E4M3", "F8_E5M2"})


@dataclass(frozen=True, slots=True)
class BaseModel:
    """What an adapter is held against: the base's name, its `config.json`, and its tensors as far as they are here."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def layers(self) -> int | None:
        """How many layers it has; None where its configuration does not say it."""
        text = self.config.get("text_config")
        source = text if isinstance(text, dict) else self.config
        for key in ("num_hidden_layers", "n_layer", "num_layers"):
            if (count := as_integer(source.get(key))) is not None:
                return count
        return None

    @property
    def has_several_parts(self) -> bool:
        """Whether it has more than a language model, so that a number in a name may be that of another part's layer."""
        return any(key.endswith("_config") and isinstance(each, dict) for key, each in self.config.items())


@dataclass(frozen=True, slots=True)
class _Pair:
    """The two matrices of one module: A (rank × in) and B (out × rank), with how their numbers are."""

    a: Tensor
    b: Tensor
    is_embedding: bool


def read_base(folder: Path) -> BaseModel:
    """The base in this folder. What of it cannot be read is left out: an adapter is then held against less."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        config = None
    try:
        tensors = read_headers(folder)
    except BadFile:
        tensors = {}
    return BaseModel(folder.name, config if isinstance(config, dict) else {}, tensors)


def flaw(folder: Path, base: BaseModel | None = None, *, max_rank: int | None = None) -> str | None:
    """Why the adapter in this folder is not served, as the end of a sentence that begins with the adapter; None where
    the files tell nothing against it.

    `base`: what it is to run on, None where that is not here. `max_rank`: the highest that the engine takes. Blocks for
    as long as reading the weights takes.
    """
    config = adapter_config(folder)
    if isinstance(config, str):
        return config
    if (said := settings_flaw(config, max_rank)) is not None:
        return said
    file = folder / WEIGHTS
    if not file.is_file():
        return _without_weights(folder)
    try:
        tensors = read_header(file).tensors
        modules = _Modules(base)
        pairs = dict(_pairs(tensors, modules))
        _check_modules(pairs, config, base, modules)
        _check_values(file, tensors, pairs)
    except BadFile as exc:
        return f"is broken: {exc}"
    except _Unfit as exc:
        return str(exc)
    return None


def adapter_config(folder: Path) -> dict[str, Any] | str:
    """Its adapter_config.json, decoded; the sentence's end where there is none."""
    file = folder / "adapter_config.json"
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        instead = "is a model, not an adapter (LoRA)" if (folder / "config.json").is_file() else "holds no adapter"
        return f"{instead}: it has no adapter_config.json" if folder.exists() else "has no folder here"
    except OSError as exc:
        return f"cannot be read: {exc.strerror or exc}"
    except (ValueError, RecursionError):
        return "is broken: its adapter_config.json is not JSON"
    return value if isinstance(value, dict) else "is broken: its adapter_config.json is not an object"


def _without_weights(folder: Path) -> str:
    pickle = next((name for name in ("adapter_model.bin", "adapter_model.pt") if (folder / name).exists()), None)
    if pickle is not None:
        return (
            f"has its weights as a pickle ({pickle}), which can run code when it is read: save it again with PEFT's "
            "`save_pretrained`, which writes adapter_model.safetensors"
        )
    return f"is broken: it has no {WEIGHTS}"


class _Unfit(Exception):
    """The end of a sentence that begins with the adapter."""


def _pairs(tensors: Mapping[str, Tensor], modules: _Modules) -> Iterator[tuple[str, _Pair]]:
    """The modules that it changes, by their names in the base. _Unfit for tensors that are no part of a LoRA."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.endswith((".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")):
            _check_embedding(name, tensor, modules)
            continue
        if name.endswith(_HEADS):
            continue
        match = _PART.fullmatch(name)
        if match is None:
            raise _Unfit(_no_part(name))
        module = match[1].removeprefix(_PREFIX)
        halves.setdefault(module, {})[match[2]] = tensor
    if not halves:
        raise _Unfit(NO_WEIGHTS)
    for module, parts in halves.items():
        is_embedding = "lora_embedding_A" in parts
        a, b = (parts.get(f"lora_{'embedding_' if is_embedding else ''}{half}") for half in "AB")
        if a is None or b is None or len(parts) != 2:
            raise _Unfit(f"is broken: of {module!r} it has {' and '.join(sorted(parts))} only")
        if len(a.shape) != 2 or len(b.shape) != 2:
            raise _Unfit(f"is broken: its weights for {module!r} are no matrices")
        yield module, _Pair(a, b, is_embedding)


def _no_part(name: str) -> str:
    if "lora_magnitude_vector" in name:
        return f"is a DoRA (it has magnitudes, such as {name!r}), which vLLM does not compute: {MERGE}"
    module = name.removeprefix(_PREFIX).removesuffix(".weight").removesuffix(".bias")
    if "modules_to_save" in name or "lora_" not in name:
        return f"has whole layers that were trained in full ({module!r}), which vLLM leaves out: {MERGE}"
    return f"has weights that are no part of a LoRA ({name!r}): {MERGE}"


def _check_embedding(name: str, tensor: Tensor, modules: _Modules) -> None:
    """PEFT saves the embeddings too when one of them is adapted or has grown; vLLM leaves them out without a word."""
    module = name.removeprefix(_PREFIX).replace(".base_layer", "")
    own = modules.weight(module.removesuffix(".weight"))
    if own is not None and own.shape != tensor.shape:
        raise _Unfit(
            f"was trained with a vocabulary of {tensor.shape[0]} tokens, and the base has {own.shape[0]}: "
            f"its tokenizer has grown; {MERGE}"
        )


def _check_modules(
    pairs: Mapping[str, _Pair], config: Mapping[str, Any], base: BaseModel | None, modules: _Modules
) -> None:
    trained_on = base_named(config)
    whose = f" (it says that it was trained on '{trained_on}')" if trained_on is not None else ""
    if base is not None:
        _check_places(pairs, base, modules, whose)
    for module, pair in pairs.items():
        rank = _rank_of(module, config)
        if rank is not None and (pair.a.shape[0] != rank or pair.b.shape[1] != rank):
            raise _Unfit(
                f"is broken: its weights for {module!r} have the rank {pair.a.shape[0]} and {pair.b.shape[1]}, and its "
                f"adapter_config.json says {rank}"
            )
        own = modules.weight(module)
        if own is None or len(own.shape) != 2 or own.dtype not in _FLOATS:
            continue
        into, out = pair.a.shape[1], pair.b.shape[0]
        rows, columns = reversed(own.shape) if config.get("fan_in_fan_out") or pair.is_embedding else own.shape
        if (out, into) != (rows, columns):
            raise _Unfit(
                f"was trained on another model: its weights for {module!r} go from {into} to {out} numbers, and the "
                f"base's from {columns} to {rows}{whose}"
            )


def _check_places(pairs: Mapping[str, _Pair], base: BaseModel, modules: _Modules, whose: str) -> None:
    """That the base has each of these modules, as far as it is known what it has."""
    layers = base.layers
    missing = [module for module in pairs if modules and not modules.has(module)]
    if not modules and not base.has_several_parts:
        missing = [module for module in pairs if _LAYER.fullmatch(module)]
    beyond: dict[str, int] = {}
    foreign: list[str] = []
    for module in missing:
        match = _LAYER.fullmatch(module)
        is_path_known = match is not None and (not modules or modules.has(_with_layer(match, 0)))
        if match is not None and layers is not None and is_path_known and int(match[3]) >= layers:
            beyond[module] = int(match[3])
        elif modules:
            foreign.append(module)
    if beyond:
        first = min(beyond, key=lambda module: beyond[module])
        raise _Unfit(
            f"was trained on another model: it has weights for the layer {beyond[first]} ({first!r}), and the base has "
            f"the layers 0 to {(layers or 1) - 1}{whose}"
        )
    if foreign:
        raise _Unfit(
            f"has {len(foreign)} of {len(pairs)} modules that the base does not have, such as {foreign[0]!r} (the "
            f"base has {modules.like(foreign[0])!r}), and would leave them out{whose}"
        )


def _with_layer(match: re.Match[str], layer: int) -> str:
    before = f"{match[1]}." if match[1] else ""
    return f"{before}{match[2]}.{layer}.{match[4]}"


def _plain(module: str) -> str:
    """The name without what families add to it or leave out."""
    return ".".join(part for part in module.split(".") if part not in _WRAPPERS)


def _ends(name: str) -> Iterator[str]:
    """The name itself, and what is left of it when parts are taken off its beginning."""
    yield name
    at = name.find(".")
    while at >= 0:
        yield name[at + 1 :]
        at = name.find(".", at + 1)


class _Modules:
    """The modules of a base, found by the names that an adapter has for them. It has none where its weights are not
    here.
    """

    def __init__(self, base: BaseModel | None) -> None:
        self._tensors = base.tensors if base is not None else {}
        self._names = {_plain(name.rpartition(".")[0]): name.rpartition(".")[0] for name in self._tensors}
        self._ends: frozenset[str] | None = None

    def __bool__(self) -> bool:
        return bool(self._names)

    def has(self, module: str) -> bool:
        """Whether the base has it, by its whole name or with something in front of it on one of the two sides. Its head
        is there too where it is the embedding; experts may be kept as one.
        """
        plain = _plain(module)
        if plain == "lm_head" or ".experts" in module or any(end in self._names for end in _ends(plain)):
            return True
        if self._ends is None:
            self._ends = frozenset(end for name in self._names for end in _ends(name))
        return plain in self._ends

    def weight(self, module: str) -> Tensor | None:
        """Its weight, where that is certain; the head's is the embedding's where they are one."""
        name = self._names.get(_plain(module), module)
        own = self._tensors.get(f"{module}.weight") or self._tensors.get(f"{name}.weight")
        if own is not None or module.rpartition(".")[2] != "lm_head":
            return own
        return self._tensors.get(f"{self._names.get('embed_tokens', '')}.weight")

    def like(self, module: str) -> str:
        """The name of one in a layer that ends as this one's does, else of any in a layer."""
        in_layers = [name for name in self._names.values() if _LAYER.fullmatch(name)]
        end = module.rpartition(".")[2]
        return next((name for name in in_layers if name.endswith(f".{end}")), next(iter(in_layers), ""))


def _rank_of(module: str, config: Mapping[str, Any]) -> int | None:
    """The rank that PEFT gives this module: the first pattern that fits the end of its name, else `r`."""
    if ".experts" in module:
        return None  # PEFT names those of a mixture otherwise than it saves them
    patterns = config.get("rank_pattern")
    for pattern, rank in patterns.items() if isinstance(patterns, dict) else ():
        try:
            if re.fullmatch(rf"(.*\.)?({pattern})", module):
                return as_integer(rank)
        except re.error:
            return None
    return as_integer(config.get("r"))


def _check_values(file: Path, tensors: Mapping[str, Tensor], pairs: Mapping[str, _Pair]) -> None:
    seen: dict[Tensor, Values] = {}
    for name, tensor in tensors.items():
        seen[tensor] = values = look(file, tensor)
        if not values.is_finite:
            raise _Unfit(
                f"has numbers that are not finite (NaN or infinity, in {name!r}): its training has failed, and with it "
                "the base and all other adapters of the engine would answer nonsense"
            )
    if all(seen[pair.a].is_zero or seen[pair.b].is_zero for pair in pairs.values()):
        raise _Unfit("changes nothing: its weights are all zero, as they are before the training")
