"""Words and files are read as LLaMA-Factory's own parser reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.llamafactory.arguments import BadArguments, read

MODEL = ["--model_name_or_path", "/m"]


def values(*words: str) -> dict[str, Any]:
    given = dict(read([*MODEL, *words]).values)
    assert given.pop("model_name_or_path") == "/m"
    return given


def errors(*words: str) -> list[str]:
    with pytest.raises(BadArguments) as caught:
        read(words)
    return caught.value.errors


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["--template", "qwen"], {"template": "qwen"}),
        (["--template=qwen"], {"template": "qwen"}),
        (["--vllm-maxlen", "8192"], {"vllm_maxlen": 8192}),
        (["--vllm_maxlen=8192", "--vllm_maxlen=1024"], {"vllm_maxlen": 1024}),
        (["--vllm_enforce_eager"], {"vllm_enforce_eager": True}),
        (["--vllm-enforce-eager", "true"], {"vllm_enforce_eager": True}),
        (["--vllm_enforce_eager", "0"], {"vllm_enforce_eager": False}),
        (["--vllm_enforce_eager=False"], {"vllm_enforce_eager": False}),
        (["--no_skip_special_tokens"], {"skip_special_tokens": False}),
        (["--no-do-sample", "--top_k", "-1"], {"do_sample": False, "top_k": -1}),
        (["--temperature", "1e-1"], {"temperature": 0.1}),
        (["--default_system", ""], {"default_system": ""}),
        (["--default_system", "- be kind -"], {"default_system": "- be kind -"}),
        (["--vllm_config", '{"max_num_seqs": 8}'], {"vllm_config": {"max_num_seqs": 8}}),
        (["--dataset", "a,b", "--use_dora"], {"dataset": "a,b", "use_dora": True}),
    ],
)
def test_words_become_values(words: list[str], given: dict[str, Any]) -> None:
    assert values(*words) == given


def test_what_is_not_given_has_its_default() -> None:
    arguments = read(MODEL)

    assert (arguments["temperature"], arguments["top_p"], arguments["top_k"]) == (0.95, 0.7, 50)
    assert (arguments["max_new_tokens"], arguments["vllm_maxlen"], arguments["vllm_gpu_util"]) == (1024, 4096, 0.7)
    assert not arguments.is_given("temperature")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--vllm_max_len", "1"], "--vllm_max_len: is not a flag of LLaMA-Factory's server (nearest: --vllm_maxlen"),
        (["--zzzzzzz"], "--zzzzzzz: is not a flag of LLaMA-Factory's server (--help lists them)"),
        (["--temperature", "hot"], "--temperature: 'hot' is not a number"),
        (["--temperature", "nan"], "--temperature: 'nan' is not a number"),
        (["--top_k", "1.5"], "--top_k: '1.5' is not a whole number"),
        (["--vllm_enforce_eager", "maybe"], "--vllm_enforce_eager: 'maybe' is neither true nor false"),
        (["--infer_backend", "tgi"], "--infer_backend: 'tgi' is not allowed here (known: huggingface, vllm, sglang"),
        (["--vllm_config", "{"], "--vllm_config: is not JSON"),
        (["--vllm_config", "[]"], "--vllm_config: is not a JSON object"),
        (["--template"], "--template: needs a value"),
        (["--template", "--vllm_enforce_eager"], "--template: needs a value"),
        (["/some/model"], "'/some/model': is not expected here: --flag value, or a YAML or JSON file as the first"),
        (["-x"], "'-x': is not expected here"),
    ],
)
def test_each_mistake_is_one_sentence(words: list[str], sentence: str) -> None:
    told = errors(*MODEL, *words)

    assert len(told) == 1
    assert told[0].startswith(sentence)


def test_all_mistakes_are_told_at_once() -> None:
    assert len(errors(*MODEL, "--zzzzzzz", "--top_p", "x", "--temperature", "y")) == 3


def test_a_model_has_to_be_named() -> None:
    assert errors("--template", "qwen") == [
        "--model_name_or_path is missing: the folder of the model, or its name on the hub"
    ]


def test_a_yaml_file_is_taken_with_what_is_behind_it(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(
        "model_name_or_path: /m\ntemplate: qwen\ninfer_backend: vllm  # choices: [huggingface, vllm]\n"
        "trust_remote_code: true\ntemperature: 1e-1\nvllm_config: {max_num_seqs: 8}\nadapter_name_or_path: null\n"
    )

    arguments = read([str(file), "template=llama3", "vllm_config.seed=7", "top_k=20", "--vllm_enforce_eager"])

    assert arguments.source == file
    assert dict(arguments.values) == {
        "model_name_or_path": "/m",
        "template": "llama3",
        "infer_backend": "vllm",
        "trust_remote_code": True,
        "temperature": 0.1,
        "vllm_config": {"max_num_seqs": 8, "seed": 7},
        "top_k": 20,
        "vllm_enforce_eager": True,
    }


def test_a_json_file_is_one_too(tmp_path: Path) -> None:
    file = tmp_path / "serve.json"
    file.write_text(json.dumps({"model_name_or_path": "/m", "enable_thinking": False}))

    assert read([str(file)]).values == {"model_name_or_path": "/m", "enable_thinking": False}


def test_a_file_for_training_is_refused_with_what_helps_and_taken_when_that_is_said(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(
        "model_name_or_path: /m\ntemplate: qwen\nlora_rank: 8\nper_device_train_batch_size: 1\noutput_dir: o\n"
    )

    told = errors(str(file))
    allowed = read([str(file)], allow_extra=True)

    assert [line.partition(": is not")[0] for line in told[:2]] == [
        f"{file}: per_device_train_batch_size",
        f"{file}: output_dir",
    ]
    assert told[2].endswith("ALLOW_EXTRA_ARGS=1 leaves them out")
    assert allowed.ignored == ("per_device_train_batch_size", "output_dir")
    assert allowed["lora_rank"] == "8"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.yaml", "a: [", "cannot be read: "),
        ("a.json", "{", "cannot be read: "),
        ("a.yml", "- 1\n", "is not a mapping"),
        ("a.yaml", "\xff", "is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    file = tmp_path / name
    file.write_bytes(content.encode("latin-1"))

    assert errors(str(file))[0].startswith(f"{file}: {sentence}")


def test_a_file_that_is_not_there_is_one_sentence() -> None:
    assert errors("/nowhere/a.yaml") == ["/nowhere/a.yaml: cannot be read: No such file or directory"]
