"""The table of flags against LLaMA-Factory's own classes, as release 0.9.5 has them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.llamafactory.flags import FLAGS, nearest
from tests import ROOT

RECORDED: dict[str, Any] = json.loads((ROOT / "tests/recorded/llamafactory_flags.json").read_text())
USED = [name for name, flag in FLAGS.items() if flag.unused is None]
# What its types are called, and how a value of them is read here.
SORTS = {"bool": "switch", "int": "whole", "float": "number", "str": "text", "dict": "json"}


def test_every_flag_of_its_server_is_known_and_no_other() -> None:
    assert FLAGS.keys() == RECORDED.keys()
    assert len(FLAGS) == 211


@pytest.mark.parametrize("name", FLAGS)
def test_each_switch_is_one_there(name: str) -> None:
    assert (FLAGS[name].sort == "switch") is RECORDED[name]["type"].startswith("bool")


@pytest.mark.parametrize("name", USED)
def test_each_flag_that_decides_something_has_its_type_and_its_default(name: str) -> None:
    first = RECORDED[name]["type"].split(" ")[0]

    assert FLAGS[name].sort == SORTS.get(first, "text")
    assert FLAGS[name].default == RECORDED[name]["default"]


@pytest.mark.parametrize("name", [name for name in USED if "Literal" in RECORDED[name]["type"]])
def test_each_flag_takes_the_words_that_it_takes_there(name: str) -> None:
    assert all(f"'{word}'" in RECORDED[name]["type"] for word in FLAGS[name].choices)
    assert len(FLAGS[name].choices) == RECORDED[name]["type"].count("'") // 2


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("model_path", "model_name_or_path"),
        ("vllm_max_len", "vllm_maxlen"),
        ("gpu_util", "vllm_gpu_util"),
        ("max_tokens", "max_new_tokens"),
        ("templat", "template"),
        ("infer_backends", "infer_backend"),
    ],
)
def test_the_nearest_flag_is_found(wrong: str, right: str) -> None:
    assert right in nearest(wrong)


def test_nothing_is_near_to_a_strangers_word() -> None:
    assert nearest("zzzzzz") == []
