"""What a configuration names and this machine does not have, or has broken, as `modelport check` and `plan` say it."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from app.config.model import AnyBackend
from backends.config.base import BackendConfig
from backends.kinds import preflight
from tests.rigs.adapter_folder import Change, Config, Tensors, adapter, base_model
from tests.rigs.cli import run


def safetensors(path: Path, promised: int = 8) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, promised]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A model, an adapter and a vLLM, all sound."""
    adapter(tmp_path / "law", base_model(tmp_path / "model"), named("org/base"))
    parsers = tmp_path / "env/lib/python3.12/site-packages/vllm/tool_parsers"
    parsers.mkdir(parents=True)
    (parsers / "__init__.py").write_text('_TOOL_PARSERS_TO_REGISTER = {"brandnew": ("file", "Class")}\n')
    (tmp_path / "env/bin").mkdir()
    (tmp_path / "env/bin/vllm").touch(mode=0o755)
    return tmp_path


def named(base: str) -> Change:
    """It says that it was trained on this base."""

    def change(tensors: Tensors, config: Config) -> None:
        config["base_model_name_or_path"] = base

    return change


def vllm(here: Path, **settings: object) -> BackendConfig:
    sound = {"kind": "vllm", "model": f"{here}/model", "command": f"{here}/env/bin/vllm"}
    return read({**sound, **settings})


def read(section: dict[str, object]) -> BackendConfig:
    adapter: TypeAdapter[BackendConfig] = TypeAdapter(AnyBackend)
    return adapter.validate_python(section)


def test_of_what_is_sound_nothing_is_missing(here: Path) -> None:
    sound = vllm(here, adapters={"law": f"{here}/law"}, tool_call_parser="brandnew", reasoning_parser="qwen3")

    assert list(preflight(sound).missing()) == []
    assert list(preflight(vllm(here, model="org/model", adapters={"law": "org/law"})).missing()) == []
    assert list(preflight(vllm(here, model="s3://bucket/model")).missing()) == []
    assert list(preflight(vllm(here, chat_template="{{ messages }}")).missing()) == []


MISSING: dict[str, tuple[dict[str, object], str, str]] = {
    "command": ({"command": "HERE/none/vllm"}, "command", "'HERE/none/vllm' is not there: install vLLM"),
    "command on the path": ({"command": "no-such-vllm"}, "command", "'no-such-vllm' is not there"),
    "command that cannot be run": (
        {"command": "HERE/law/adapter_config.json"},
        "command",
        "'HERE/law/adapter_config.json' is not a program that can be run",
    ),
    "model": ({"model": "HERE/none"}, "model", "'HERE/none' is not a folder here"),
    "relative model": ({"model": "./none"}, "model", "'./none' is not a folder here"),
    "model that cannot be on the hub": (
        {"model": "models/llama/7b"},
        "model",
        "'models/llama/7b' is not a folder here, nor a name on the hub",
    ),
    "model of nothing": ({"model": "HERE/env"}, "model", "'HERE/env' holds no model: it has no config.json"),
    "file as model": (
        {"model": "HERE/model/config.json"},
        "model",
        "'HERE/model/config.json' is a file: name the folder",
    ),
    "adapter as model": (
        {"model": "HERE/law"},
        "model",
        "'HERE/law' is an adapter (LoRA), not a model: set `model` to its base ('org/base')",
    ),
    "adapter": ({"adapters": {"law": "HERE/none"}}, "adapters.law", "'HERE/none' is not a folder here"),
    "model as adapter": (
        {"adapters": {"law": "HERE/model"}},
        "adapters.law",
        "'HERE/model' is a model, not an adapter (LoRA): it has no adapter_config.json",
    ),
    "template": ({"chat_template": "HERE/none.jinja"}, "chat_template", "'HERE/none.jinja' is not a file here"),
    "tool parser": (
        {"tool_call_parser": "brandnow"},
        "tool_call_parser",
        "the vLLM of `command` has no parser 'brandnow' (similar: brandnew)",
    ),
    "reasoning parser": (
        {"reasoning_parser": "qwen-3"},
        "reasoning_parser",
        "vLLM 0.32 has no parser 'qwen-3' (similar: qwen3",
    ),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_is_not_here_is_named(here: Path, case: str) -> None:
    settings, key, sentence = MISSING[case]
    filled = json.loads(json.dumps(settings).replace("HERE", str(here)))

    missing = list(preflight(vllm(here, **filled)).missing())

    assert [each for each, _ in missing] == [key]
    assert missing[0][1].startswith(sentence.replace("HERE", str(here)))


def test_a_parser_of_a_plugin_is_not_looked_for(here: Path) -> None:
    config = vllm(here, tool_call_parser="mine", args=["--tool-parser-plugin=/p.py"])

    assert list(preflight(config).missing()) == []


@pytest.mark.parametrize("folder", ["model", "law"])
@pytest.mark.parametrize("name", ["cut", "empty", "other"])
def test_broken_weights_are_named(here: Path, folder: str, name: str) -> None:
    [file] = (here / folder).glob("*.safetensors")
    if name == "cut":
        safetensors(file, promised=1000)
    else:
        file.write_bytes(b"" if name == "empty" else b"<html>not found</html>")
    flaws = {"cut": "has 1000 bytes for its tensor", "empty": "is empty", "other": "is no safetensors file"}

    [(_, sentence)] = preflight(vllm(here, adapters={"law": f"{here}/law"})).missing()

    assert f"{file.name} {flaws[name]}" in sentence


BROKEN = {
    '{"r": 8': "its adapter_config.json is not JSON",
    "[]": "its adapter_config.json is not an object",
    '{"lora_alpha": 1}': "its adapter_config.json names no rank (`r`)",
}


@pytest.mark.parametrize("written", BROKEN)
def test_a_broken_adapter_is_named(here: Path, written: str) -> None:
    (here / "law/adapter_config.json").write_text(written)

    [(key, sentence)] = preflight(vllm(here, adapters={"law": f"{here}/law"})).missing()

    assert (key, sentence) == ("adapters.law", f"'{here}/law' is broken: {BROKEN[written]}")


def test_an_adapter_or_a_model_without_weights_is_named(here: Path) -> None:
    (here / "law/adapter_model.safetensors").unlink()
    (here / "model/model.safetensors").unlink()

    missing = dict(preflight(vllm(here, adapters={"law": f"{here}/law"})).missing())

    assert missing == {
        "model": f"'{here}/model' holds no weights (*.safetensors)",
        "adapters.law": f"'{here}/law' is broken: it has no adapter_model.safetensors",
    }


def test_a_model_that_came_in_part_is_named(here: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (here / "model/model.safetensors.index.json").write_text(json.dumps(index))

    [(key, sentence)] = preflight(vllm(here)).missing()

    assert key == "model"
    assert "does not have 'model-00002-of-00002.safetensors'" in sentence


OTHERS: dict[str, tuple[dict[str, object], list[tuple[str, str]]]] = {
    "a file": ({"kind": "llama_cpp", "model": "/none.gguf"}, [("model", "'/none.gguf' is not a file here")]),
    "a package": ({"kind": "llama_cpp", "model": "package:none"}, [("model", "the package 'none' is not installed")]),
    "a daemon": (
        {"kind": "ollama", "managed": True, "command": "/none/ollama", "models_folder": "/none"},
        [
            ("command", "'/none/ollama' is not there: install Ollama, or name its program"),
            ("models_folder", "'/none' is not a folder here"),
        ],
    ),
    "somebody else's daemon": ({"kind": "ollama"}, []),
    "somebody else's engine": ({"kind": "remote", "url": "http://127.0.0.1:9/v1"}, []),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_kinds_are_looked_at_too(case: str) -> None:
    section, missing = OTHERS[case]

    assert list(preflight(read(section)).missing()) == missing


def test_a_gguf_file_that_is_not_valid_or_is_cut_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_bytes(b"<html>")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 5))

    sentences = {
        name: [
            sentence for _, sentence in preflight(read({"kind": "llama_cpp", "model": str(tmp_path / name)})).missing()
        ]
        for name in ("page.gguf", "cut.gguf")
    }

    assert sentences == {
        "page.gguf": ["'page.gguf' is not a GGUF file"],
        "cut.gguf": [f"'{tmp_path}/cut.gguf' is broken or cut short (it ends too early): bring it here again"],
    }


def test_check_and_plan_say_it(here: Path) -> None:
    shutil.rmtree(here / "law")
    (here / "modelport.yaml").write_text(
        f"backends:\n  gpu: {{kind: vllm, model: {here}/none, command: {here}/none/vllm, "
        f"adapters: {{law: {here}/law}}, tool_call_parser: x}}\nmodels: {{m: {{backend: gpu}}}}\n"
    )

    check, plan = run(here, "check"), run(here, "plan")
    listed = json.loads(run(here, "plan", "--json").out)["seats"][0]["lacks"]

    assert check.code == 0
    for setting in ("command", "model", "adapters.law", "tool_call_parser"):
        assert f"modelport.yaml: backends.gpu.{setting}: " in check.err
        assert f"gpu: {setting}: " in plan.err
        assert any(each.startswith(f"{setting}: ") for each in listed)
