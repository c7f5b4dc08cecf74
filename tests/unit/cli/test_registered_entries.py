"""app/cli/registered_entries.py and app/registration/order.py: what is decided without a folder or an engine."""

from __future__ import annotations

import pytest

from app.cli.registered_entries import settings_here, without_gpu
from app.registration.daemon import renders_jinja
from app.registration.order import daemon_parameters, merged_generation, sampling_of, slug, stop_ids_to_add

SMOLLM2 = {"num_hidden_layers": 30, "num_key_value_heads": 3, "num_attention_heads": 9, "head_dim": 64}


def test_on_a_processor_the_cache_has_room_for_two_requests_of_full_length() -> None:
    settings = without_gpu({**SMOLLM2, "max_position_embeddings": 8192}, None)

    assert settings == {
        "dtype": "float32",
        "enforce_eager": True,
        "kv_cache_memory_bytes": 2 * 8192 * 30 * 2 * 3 * 64 * 4,
    }
    assert without_gpu(SMOLLM2, 512)["kv_cache_memory_bytes"] == 256 << 20


def test_a_model_whose_full_length_does_not_fit_gets_a_shorter_one() -> None:
    large = {"num_hidden_layers": 80, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072}

    settings = without_gpu(large, None)

    assert settings["kv_cache_memory_bytes"] == 4 << 30
    assert settings["max_model_len"] == (4 << 30) // (80 * 2 * 8 * 128 * 4) // 16 * 16


@pytest.mark.parametrize(
    ("tree", "command", "program", "written"),
    [
        ({}, None, "/usr/bin/vllm", None),
        ({}, None, None, "vllm"),
        ({}, "/opt/vllm", "/usr/bin/vllm", "/opt/vllm"),
        ({"backends": {"g": {"kind": "vllm", "command": "/a"}}}, None, None, "/a"),
        ({"backends": {"g": {"kind": "vllm", "command": "/a"}}}, "/b", None, "/b"),
    ],
)
def test_vllm_is_called_as_it_is_asked_for_else_as_in_the_file_else_as_on_the_path(
    tree: dict[str, object], command: str | None, program: str | None, written: str | None
) -> None:
    assert settings_here(tree, command, program, {}).command == written


def test_what_a_generation_config_does_not_name_has_no_effect() -> None:
    values = sampling_of({"temperature": 0.6, "top_k": 0, "do_sample": True}, ()).values

    assert values == {"temperature": 0.6, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


def test_a_daemon_calls_some_parameters_otherwise() -> None:
    sampling = sampling_of({"repetition_penalty": 1.1}, ("a", "a", "b"))

    parameters = daemon_parameters(sampling, 4096)

    assert parameters["repeat_penalty"] == 1.1
    assert parameters["top_k"] == 0
    assert parameters["stop"] == ["a", "b"]
    assert parameters["num_ctx"] == 4096


def test_only_the_ends_that_the_models_own_files_do_not_name_are_added() -> None:
    ids = {"<|im_end|>": 2, "<|eot|>": 7, "<|eom|>": 8}

    more, texts = stop_ids_to_add(
        ["<|im_end|>", "<|eot|>", "<|eom|>", "\nHuman:"], ids, {"eos_token_id": [8]}, "<|im_end|>"
    )

    assert (more, texts) == ([7], ["\nHuman:"])
    assert merged_generation({"eos_token_id": [8], "top_p": 0.9}, more, 2) == {"eos_token_id": [8, 7], "top_p": 0.9}
    assert merged_generation({}, more, 2) == {"eos_token_id": [2, 7]}


@pytest.mark.parametrize(
    ("name", "written"), [("law", "law"), ("org/law:v1", "org-law-v1"), ("..", "model"), ("法律", "model")]
)
def test_a_name_for_files_has_nothing_that_a_path_minds(name: str, written: str) -> None:
    assert slug(name) == written


@pytest.mark.parametrize(
    ("version", "is_new"), [("0.33.0-rc2", True), ("0.33", True), ("1.0", True), ("0.32.9", False), ("", False)]
)
def test_which_daemons_render_the_template_in_the_file(version: str, is_new: bool) -> None:
    assert renders_jinja(version) is is_new
