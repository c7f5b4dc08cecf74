from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.model_files.adapter_file import flaw, read_base
from tests.rigs import adapter_folder as rig
from tests.rigs.adapter_folder import Change, Config, Tensors, adapter, base_model, full
from tests.rigs.safetensors_file import Weights, write

PREFIX = "base_model.model."
LAYER = f"{PREFIX}model.layers.0."


def says(key: str, value: Any) -> Change:
    """The adapter's configuration says this."""

    def change(tensors: Tensors, config: Config) -> None:
        config[key] = value

    return change


def has(name: str, *shape: int) -> Change:
    """It has this tensor besides."""

    def change(tensors: Tensors, config: Config) -> None:
        tensors[name] = full(shape, 0.5)

    return change


def renamed(old: str, new: str) -> Change:
    def change(tensors: Tensors, config: Config) -> None:
        moved = {name.replace(old, new): each for name, each in tensors.items()}
        tensors.clear()
        tensors.update(moved)

    return change


def without(end: str) -> Change:
    def change(tensors: Tensors, config: Config) -> None:
        for name in [name for name in tensors if name.endswith(end)]:
            del tensors[name]

    return change


def infinite(tensors: Tensors, config: Config) -> None:
    name = next(name for name in tensors if "lora_A" in name)
    tensors[name] = full(tensors[name].shape, math.inf)


def another_rank(tensors: Tensors, config: Config) -> None:
    """One module has a rank of its own, as PEFT writes it."""
    config["rank_pattern"] = {"layers.1.self_attn.q_proj": 2}
    module = f"{PREFIX}model.layers.1.self_attn.q_proj"
    tensors[f"{module}.lora_A.weight"] = full((2, 8), 0.5)
    tensors[f"{module}.lora_B.weight"] = full((8, 2), 0.5)


SOUND: dict[str, tuple[Change, ...]] = {
    "as PEFT writes it": (),
    "a rank of its own": (another_rank,),
    "another name for the same layers": (renamed(".model.layers.", ".model.language_model.layers."),),
    "without PEFT's prefix": (renamed(PREFIX, ""),),
    "a start that changes nothing of the base": (says("init_lora_weights", "gaussian"), says("use_rslora", True)),
    "a head for classes": (says("modules_to_save", ["score"]), has(f"{PREFIX}score.weight", 2, 8)),
    "the embedding as it was": (has(f"{PREFIX}model.embed_tokens.base_layer.weight", 16, 8),),
    "adapted embeddings": (
        has(f"{PREFIX}model.embed_tokens.lora_embedding_A", 4, 16),
        has(f"{PREFIX}model.embed_tokens.lora_embedding_B", 8, 4),
    ),
    "an adapted head, which is the embedding": (
        has(f"{PREFIX}lm_head.lora_A.weight", 4, 8),
        has(f"{PREFIX}lm_head.lora_B.weight", 16, 4),
    ),
    "experts, which the base may keep as one": (
        has(f"{LAYER}mlp.experts.3.up_proj.lora_A.weight", 4, 8),
        has(f"{LAYER}mlp.experts.3.up_proj.lora_B.weight", 8, 4),
    ),
}


@pytest.mark.parametrize("case", SOUND)
def test_nothing_is_said_against_one_that_is_sound(tmp_path: Path, case: str) -> None:
    base = base_model(tmp_path / "base")

    assert flaw(adapter(tmp_path / "law", base, *SOUND[case]), read_base(base), max_rank=4) is None


FAULTS: dict[str, tuple[Change, str]] = {
    "another family's path": (
        rig.foreign_path,
        "has 4 of 4 modules that the base does not have, such as 'transformer.h.0.self_attn.q_proj' (the base has "
        "'model.layers.0.self_attn.q_proj'), and would leave them out (it says that it was trained on 'base')",
    ),
    "layers beyond": (
        rig.layers_beyond,
        "was trained on another model: it has weights for the layer 100 ('model.layers.100.self_attn.q_proj'), and the "
        "base has the layers 0 to 1 (it says that it was trained on 'base')",
    ),
    "all zero": (rig.zeros, "changes nothing: its weights are all zero, as they are before the training"),
    "a NaN": (rig.nan, "has numbers that are not finite (NaN or infinity, in 'base_model.model.model.layers.0"),
    "an infinity": (infinite, "has numbers that are not finite"),
    "another base": (
        rig.other_base,
        "was trained on another model: its weights for 'model.layers.0.self_attn.q_proj' go from 16 to 16 numbers, and "
        "the base's from 8 to 8",
    ),
    "modules_to_save": (rig.modules_to_save, "trained whole layers besides (`modules_to_save`: lm_head), which vLLM"),
    "modules_to_save in one word": (says("modules_to_save", "embed_tokens"), "trained whole layers besides (`modules"),
    "whole layers that it does not name": (
        has(f"{PREFIX}lm_head.weight", 16, 8),
        "has whole layers that were trained in full ('lm_head'), which vLLM leaves out: merge it into the base",
    ),
    "DoRA": (rig.dora, "is a DoRA, which vLLM does not compute: merge it into the base"),
    "DoRA that it does not name": (
        has(f"{LAYER}self_attn.q_proj.lora_magnitude_vector", 8),
        "is a DoRA (it has magnitudes, such as",
    ),
    "a tokenizer that grew": (
        has(f"{PREFIX}model.embed_tokens.base_layer.weight", 18, 8),
        "was trained with a vocabulary of 18 tokens, and the base has 16: its tokenizer has grown; merge it",
    ),
    "tokens of its own": (says("trainable_token_indices", [3]), "trained embeddings of its own (`trainable_token_ind"),
    "no LoRA": (says("peft_type", "IA3"), "is of the type 'IA3', and vLLM serves LoRA only: merge it"),
    "biases": (says("bias", "all"), "trained biases besides (`bias: all`), which vLLM does not take: merge it"),
    "a bias of its own": (says("lora_bias", True), "has a bias (`lora_bias`), which vLLM does not compute"),
    "a base that was changed": (
        says("init_lora_weights", "pissa"),
        "changed the base's own weights when its training began (`init_lora_weights: pissa`): convert it",
    ),
    "no rank": (says("r", None), "is broken: its adapter_config.json names no rank (`r`)"),
    "a rank that is no number": (says("r", True), "is broken: its adapter_config.json names no rank (`r`)"),
    "no alpha": (says("lora_alpha", None), "is broken: its adapter_config.json has no `lora_alpha`"),
    "alpha zero": (says("lora_alpha", 0), "changes nothing: its `lora_alpha` is 0"),
    "no modules": (says("target_modules", []), "is broken: its adapter_config.json names no `target_modules`"),
    "a rank too high": (
        says("rank_pattern", {"q_proj": 64}),
        "has the rank 64, and the engine was started for at most 16: write it under `adapters` and restart the backend",
    ),
    "another rank than it says": (
        says("r", 8),
        "is broken: its weights for 'model.layers.0.self_attn.q_proj' have the rank 4 and 4, and its "
        "adapter_config.json says 8",
    ),
    "one half": (without("1.self_attn.q_proj.lora_B.weight"), "is broken: of 'model.layers.1.self_attn.q_proj' it has"),
    "no matrices": (has(f"{LAYER}mlp.down_proj.lora_A.weight", 4), "is broken: of 'model.layers.0.mlp.down_proj' it"),
    "nothing": (without(""), "changes nothing: it has no weights"),
    "something else": (has(f"{LAYER}self_attn.q_proj.lora_C.weight", 4), "has weights that are no part of a LoRA"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_in_one_sentence(tmp_path: Path, fault: str) -> None:
    base = base_model(tmp_path / "base")
    change, sentence = FAULTS[fault]

    said = flaw(adapter(tmp_path / "law", base, change), read_base(base), max_rank=16)

    assert str(said).startswith(sentence)
    assert "\n" not in str(said)
    assert str(tmp_path) not in str(said)


WITHOUT_BASE = ("all zero", "a NaN", "modules_to_save", "DoRA", "one half", "nothing")


@pytest.mark.parametrize("fault", WITHOUT_BASE)
def test_a_base_that_is_not_here_leaves_what_the_adapter_tells_itself(tmp_path: Path, fault: str) -> None:
    change, sentence = FAULTS[fault]

    folder = adapter(tmp_path / "law", base_model(tmp_path / "base"), change)

    assert str(flaw(folder)).startswith(sentence)


def test_a_base_of_which_only_the_configuration_is_here_still_says_how_many_layers_it_has(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    beyond, foreign = (
        adapter(tmp_path / change.__name__, base, change) for change in (rig.layers_beyond, rig.foreign_path)
    )
    (base / "model.safetensors").write_bytes(b"cut")

    assert "the base has the layers 0 to 1" in str(flaw(beyond, read_base(base)))
    assert flaw(foreign, read_base(base)) is None


def test_the_layers_of_a_picture_model_beside_it_are_not_the_bases(tmp_path: Path) -> None:
    """What sees pictures may have more layers than what writes."""
    base = base_model(tmp_path / "base")
    config = json.loads((base / "config.json").read_bytes())
    (base / "config.json").write_text(json.dumps({"text_config": config, "vision_config": {"depth": 200}}))
    folder = adapter(tmp_path / "law", base, renamed(".model.layers.", ".visual.layers.10"))
    (base / "model.safetensors").unlink()

    assert read_base(base).layers == 2
    assert flaw(folder, read_base(base)) is None


@pytest.mark.parametrize(("of_base", "of_adapter"), [("encoder.layer", "bert.encoder.layer"), ("h", "transformer.h")])
def test_a_base_may_be_saved_without_what_its_class_puts_in_front(
    tmp_path: Path, of_base: str, of_adapter: str
) -> None:
    base = base_model(tmp_path / "base", path=of_base)
    folder = adapter(tmp_path / "law", base, renamed(f"{PREFIX}{of_base}.", f"{PREFIX}{of_adapter}."))
    beyond = adapter(tmp_path / "more", base, renamed(f"{of_base}.1.", f"{of_adapter}.7."))
    other = adapter(tmp_path / "other", base, renamed(f"{of_base}.", "model.decoder.blocks."))

    assert flaw(folder, read_base(base)) is None
    assert "weights for the layer 7" in str(flaw(beyond, read_base(base)))
    assert "4 of 4 modules that the base does not have" in str(flaw(other, read_base(base)))


def test_quantized_weights_of_a_base_say_which_modules_it_has_and_not_their_sizes(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    folder = adapter(tmp_path / "law", base)
    foreign = adapter(tmp_path / "foreign", base, rig.foreign_path)
    packed = {
        f"model.layers.{layer}.self_attn.{name}_proj.qweight": Weights("I32", (1, 8), bytes(32))
        for layer in (0, 1)
        for name in "qv"
    }
    write(base / "model.safetensors", packed)

    assert flaw(folder, read_base(base)) is None
    assert "modules that the base does not have" in str(flaw(foreign, read_base(base)))


def test_pickles_are_refused_with_the_reason(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "law", base_model(tmp_path / "base"))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")

    assert str(flaw(folder)).startswith(
        "has its weights as a pickle (adapter_model.bin), which can run code when it is"
    )


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda folder: None, "has no folder here"),
    "an empty one": (lambda folder: folder.mkdir(), "holds no adapter: it has no adapter_config.json"),
    "a model": (base_model, "is a model, not an adapter (LoRA): it has no adapter_config.json"),
    "no weights": (
        lambda folder: (adapter(folder, base_model(folder)) / "adapter_model.safetensors").unlink(),
        "is broken: it has no adapter_model.safetensors",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_holds_no_adapter_is_named(tmp_path: Path, case: str) -> None:
    make, sentence = FOLDERS[case]
    make(tmp_path / "law")

    assert flaw(tmp_path / "law") == sentence


@given(data=st.data())
def test_a_file_that_was_cut_anywhere_is_named(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = adapter(tmp_path_factory.mktemp("law"), base_model(tmp_path_factory.mktemp("base")))
    file = folder / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])

    assert str(flaw(folder)).startswith("is broken: adapter_model.safetensors is ")


def test_where_it_was_trained_is_told_without_the_folders_of_that_machine(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    named = {"/data/models/Qwen/": "'Qwen'", "C:\\models\\Qwen": "'Qwen'", "Qwen/Qwen3-4B": "'Qwen/Qwen3-4B'"}

    said = {
        path: flaw(
            adapter(tmp_path / "law", base, rig.other_base, says("base_model_name_or_path", path)), read_base(base)
        )
        for path in named
    }

    assert all(str(said[path]).endswith(f"(it says that it was trained on {name})") for path, name in named.items())
