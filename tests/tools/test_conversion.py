"""Folders become GGUF files with the real converter and both quantisers, and the embedded engine serves them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.conversion.convert import ConversionError, convert
from app.conversion.digest import BASE, WEIGHTS
from app.conversion.merge import merge
from app.conversion.model_folder import read_model_folder
from app.conversion.progress import Unseen
from app.conversion.quantize import by_library, by_program, quantize
from app.conversion.scripts import script
from backends.llama_cpp.gguf_contents import read_contents
from backends.model_files.digests import weights_digest
from backends.model_files.safetensors import read_header, shards
from backends.toolenv.child import call
from backends.toolenv.environment import Toolbox, ToolError
from tests import ROOT
from tests.journeys.gateway import until
from tests.live.engines import Live
from tests.rigs.small_disk import small_disk
from tests.tools.conftest import ADAPTERS

QUIET = Unseen()


@pytest.fixture
def base(folders: Path, tmp_path: Path) -> Path:
    """A copy of the small model that a test may spoil."""
    return Path(shutil.copytree(folders / "base", tmp_path / "base"))


def data(folder: Path) -> Mapping[str, bytes]:
    """The bytes of every tensor in a folder."""
    tensors: dict[str, bytes] = {}
    for file in shards(folder):
        raw = file.read_bytes()
        tensors |= {name: raw[each.begin : each.end] for name, each in read_header(file).tensors.items()}
    return tensors


def left_in(folder: Path) -> list[str]:
    """What is in a folder besides what was in it."""
    return sorted(each.name for each in folder.iterdir() if each.name != "base")


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_merged_as_peft_merges_it(toolbox: Toolbox, folders: Path, tmp_path: Path, name: str) -> None:
    merged = merge(folders / name, None, tmp_path / "merged", toolbox, QUIET)

    assert data(merged) == data(folders / f"{name}-by-peft")
    assert read_model_folder(merged).tokenizer_files == ("tokenizer.json",)
    assert left_in(tmp_path) == ["merged"]


def test_an_adapter_for_other_layers_is_not_merged(toolbox: Toolbox, folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"belongs to no layer of the base|not found in the base model"):
        merge(folders / "plain", folders / "gpt2", tmp_path / "merged", toolbox, QUIET)

    assert left_in(tmp_path) == []


@pytest.mark.full
def test_files_of_both_quantisers_are_served(toolbox: Toolbox, folders: Path, tmp_path: Path) -> None:
    """The small model is 256 wide, so that K-quants are what they are called."""
    whole = convert(folders / "base", "auto", tmp_path / "whole.gguf", toolbox, QUIET)
    files = {"whole": whole.path}
    for quantiser in (by_program, by_library):
        files[quantiser.__name__] = made = tmp_path / f"{quantiser.__name__}.gguf"
        assert quantiser(whole.path, "q4_k_m", made, toolbox, QUIET, 1) is None
    entries = ", ".join(
        f"{name}: {{kind: llama_cpp, model: {file}, slots: 1, context_length: 256}}" for name, file in files.items()
    )
    names = ", ".join(f"{name}: {{backend: {name}}}" for name in files)
    sizes = [files[each].stat().st_size for each in ("by_program", "by_library")]
    kinds = [sorted(each.type for each in read_contents(files[name]).tensors.values()) for name in files]

    with Live(tmp_path, f"backends: {{{entries}}}\nmodels: {{{names}}}\n") as gateway:
        for name in files:
            gateway.ready(name)
        replies = [
            gateway.post("/v1/completions", {"model": name, "prompt": "one", "max_tokens": 4, "temperature": 0})
            for name in files
        ]

    assert [reply.status_code for reply in replies] == [200] * 3
    assert whole.outtype == "bf16"
    assert 15.9 < whole.bits_per_weight < 16.1
    assert sizes[0] == sizes[1]
    assert kinds[1] == kinds[2]


def test_a_file_says_where_it_comes_from_and_is_not_made_twice(toolbox: Toolbox, folders: Path, tmp_path: Path) -> None:
    out, adapter = tmp_path / "plain-q8_0.gguf", folders / "plain"

    first = convert(adapter, "q8_0", tmp_path, toolbox, QUIET)
    again = convert(adapter, "q8_0", out, toolbox, QUIET)
    with pytest.raises(ConversionError, match="is there already, and was made from something else"):
        convert(folders / "base", "q8_0", out, toolbox, QUIET)
    metadata = read_contents(out).metadata
    other = convert(folders / "base", "q8_0", out, toolbox, QUIET, replace=True)

    assert (first.path, first.was_there, again.was_there, other.was_there) == (out, False, True, False)
    assert metadata[WEIGHTS] == weights_digest(read_model_folder(adapter).weights)
    assert metadata[BASE] == weights_digest(read_model_folder(folders / "base").weights)
    assert read_contents(out).metadata[WEIGHTS] == metadata[BASE]
    assert left_in(tmp_path) == [out.name]


def test_template_and_stops_are_those_that_were_asked_for(toolbox: Toolbox, base: Path, tmp_path: Path) -> None:
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 1]}))
    (base / "README.md").write_text("---\nlicense: [\n---\n")
    out = tmp_path / "model.gguf"

    made = convert(base, "q4_k_m", out, toolbox, QUIET, chat_template="{{ own }}", eos=["<repo_name>", "no such token"])

    metadata = read_contents(out).metadata
    assert metadata["tokenizer.chat_template"] == "{{ own }}"
    assert metadata["tokenizer.ggml.eos_token_id"] == 2
    # <|im_start|> of generation_config.json, then what was asked for besides.
    assert metadata["tokenizer.ggml.eot_token_id"] == 1
    assert metadata["tokenizer.ggml.eom_token_id"] == 3
    assert len(made.remarks) == 1
    assert "'no such token'" in made.remarks[0]


REFUSED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "an architecture": (
        {"architectures": ["LlamaForCausalLN"]},
        "does not know the architecture LlamaForCausalLN (the nearest that it knows is LlamaForCausalLM;",
    ),
    "layers that are not there": ({"num_hidden_layers": 2}, "cannot be converted"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_converter_cannot_do_is_one_sentence(toolbox: Toolbox, base: Path, tmp_path: Path, what: str) -> None:
    settings, sentence = REFUSED[what]
    config = json.loads((base / "config.json").read_bytes())
    (base / "config.json").write_text(json.dumps({**config, **settings}))

    with pytest.raises(ConversionError) as caught:
        convert(base, "q8_0", None, toolbox, QUIET)

    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left_in(tmp_path) == []


def test_code_in_the_folder_is_not_run(toolbox: Toolbox, base: Path, tmp_path: Path) -> None:
    ran = tmp_path / "base" / "ran"
    (base / "tokenization_own.py").write_text(
        "from pathlib import Path\nfrom transformers import PreTrainedTokenizerFast\n"
        f"Path({str(ran)!r}).touch()\n\n\nclass OwnTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    config = json.loads((base / "tokenizer_config.json").read_bytes())
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]}}
    (base / "tokenizer_config.json").write_text(json.dumps({**config, **own}))
    said = ""

    try:
        convert(base, "bf16", tmp_path / "model.gguf", toolbox, QUIET)
    except ConversionError as exc:
        said = str(exc)

    assert not ran.exists()
    assert said == "" or "--trust-remote-code" in said
    convert(base, "bf16", tmp_path / "model.gguf", toolbox, QUIET, trust_remote_code=True, replace=True)
    assert ran.exists()


def test_a_disk_without_room_is_told_before_anything_is_written(toolbox: Toolbox, base: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        disk.fill()
        with pytest.raises(ConversionError, match=r"GB on the disk of|cannot be written"):
            convert(base, "f32", disk.folder / "model.gguf", toolbox, QUIET)
        assert [each.name for each in disk.folder.iterdir() if each.suffix != "" or each.name.startswith(".")] == []


def test_a_disk_that_becomes_full_is_one_sentence(toolbox: Toolbox, base: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "name": "x",
        "chat_template": None,
        "stops": [],
        "stop_ids": [],
        "metadata": {},
        "adds_bos": None,
    }
    with small_disk(tmp_path / "disk") as disk:
        request = {"source": str(base), "out": str(disk.folder / "model.gguf"), "outtype": "f32", **settings}
        disk.fill()
        with pytest.raises(ToolError, match=r"the disk became full|Permission denied"):
            call(toolbox.python("convert"), script("to_gguf"), {**request, "trust_remote_code": False})


def test_a_kill_leaves_nothing_that_could_be_taken_for_a_file(toolbox: Toolbox, base: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "convert", str(base), "--outtype", "q8_0", "--state", str(tmp_path / "s")]
    env = {**os.environ, "MODELPORT_TOOLS": str(toolbox.folder)}
    staged = tmp_path / ".modelport-base-q8_0.gguf.part" / "staged"
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        until(staged.exists)
        with pytest.raises(ConversionError, match="is being made by another run right now"):
            convert(base, "q8_0", None, toolbox, QUIET)
        running.send_signal(signal.SIGKILL)

    assert not (tmp_path / "base-q8_0.gguf").exists()
    assert staged.exists()
    convert(base, "f16", None, toolbox, QUIET)
    assert [name for name in left_in(tmp_path) if name != "s"] == ["base-f16.gguf"]


def test_a_gguf_is_quantised_and_one_that_is_already_is_not(toolbox: Toolbox, folders: Path, tmp_path: Path) -> None:
    whole = convert(folders / "base", "f16", tmp_path / "whole.gguf", toolbox, QUIET)

    small = quantize(whole.path, "q6_k", tmp_path / "small.gguf", toolbox, QUIET)

    assert small.bits_per_weight < 7
    assert small.source_bytes > small.size_bytes
    with pytest.raises(ConversionError, match="is quantised already"):
        quantize(small.path, "q4_k_m", tmp_path / "smaller.gguf", toolbox, QUIET)
