"""app/config/yaml_edit.py: entries that are replaced and removed, and every other byte stays."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from app.config.yaml_document import ConfigError
from app.config.yaml_edit import remove_entry, set_entry

FILE = """# The whole.
backends:
  # The first.
  gpu:
    kind: vllm   # odd   spaces
    model: /m
    # its own comment
  o: {kind: ollama, url: "http://x"}  # a daemon

# What clients write.
models:
  a: {backend: gpu}
  b:
    backend: o

# The end.
"""

REPLACED: dict[str, tuple[Sequence[str], object, str]] = {
    "in braces": (("models", "a"), {"backend": "o"}, FILE.replace("a: {backend: gpu}", "a: {backend: o}")),
    "a block": (("models", "b"), {"backend": "gpu"}, FILE.replace("b:\n    backend: o\n", "b: {backend: gpu}\n")),
    "a block with comments inside": (
        ("backends", "gpu"),
        {"kind": "vllm"},
        FILE.replace("gpu:\n    kind: vllm   # odd   spaces\n    model: /m\n", "gpu: {kind: vllm}\n"),
    ),
    "before a comment on its line": (
        ("backends", "o"),
        {"kind": "ollama"},
        FILE.replace('{kind: ollama, url: "http://x"}', "{kind: ollama}"),
    ),
    "one that is not there": (
        ("models", "c"),
        {"backend": "o"},
        FILE.replace("    backend: o\n", "    backend: o\n  c: {backend: o}\n"),
    ),
    "the first of a mapping inside a block": (
        ("backends", "gpu", "adapters", "law"),
        "/l",
        FILE.replace("    model: /m\n", '    model: /m\n    adapters: {law: "/l"}\n'),
    ),
    "the first of a mapping inside braces": (
        ("backends", "o", "num_ctx_by_model", "m"),
        1,
        FILE.replace('"http://x"}', '"http://x", num_ctx_by_model: {m: 1}}'),
    ),
}


@pytest.mark.parametrize(("path", "entry", "after"), REPLACED.values(), ids=REPLACED.keys())
def test_an_entry_takes_the_place_of_what_was_there(path: Sequence[str], entry: object, after: str) -> None:
    assert set_entry(FILE, path, entry) == after


REMOVED: dict[str, tuple[Sequence[str], str]] = {
    "in braces on a line": (("models", "a"), FILE.replace("  a: {backend: gpu}\n", "")),
    "a block": (("models", "b"), FILE.replace("  b:\n    backend: o\n", "")),
    "a line with a comment": (
        ("backends", "o"),
        FILE.replace('  o: {kind: ollama, url: "http://x"}  # a daemon\n', ""),
    ),
    "the last pair in braces": (("backends", "o", "url"), FILE.replace(', url: "http://x"', "")),
    "the first pair in braces": (("backends", "o", "kind"), FILE.replace("kind: ollama, ", "")),
    "one that is not there": (("models", "zzz"), FILE),
    "one whose section is not there": (("keys", "zzz"), FILE),
}


@pytest.mark.parametrize(("path", "after"), REMOVED.values(), ids=REMOVED.keys())
def test_an_entry_is_taken_out_and_every_other_byte_stays(path: Sequence[str], after: str) -> None:
    assert remove_entry(FILE, path) == after


@pytest.mark.parametrize(
    "text",
    [
        FILE,
        FILE.replace("\n", "\r\n"),
        "models: {a: {backend: gpu}}\n",
        "models:\n  a: {backend: gpu}",
        "models:\n      a:\n        backend: gpu\nbackends: {}\n",
        "backends:\n  gpu:\n  # nothing yet\nmodels:\n  a:\nserver: {port: 1}\n",
    ],
)
def test_what_was_added_and_is_removed_again_leaves_the_text_as_it_was(text: str) -> None:
    with_it = set_entry(text, ("models", "new"), {"backend": "x", "defaults": {"stop": ["a", "b: c"]}})

    assert with_it != text
    assert remove_entry(with_it, ("models", "new")).rstrip() == text.rstrip()


def test_the_only_entry_of_a_section_leaves_the_section_empty() -> None:
    assert remove_entry("x: 1\nmodels:\n  a: {backend: gpu}\n", ("models", "a")) == "x: 1\nmodels:\n"


def test_one_adapter_among_several_is_replaced_and_removed() -> None:
    text = "backends:\n  gpu:\n    kind: vllm\n    adapters:\n      a: /a  # one\n      b: /b\n    model: /m\n"

    assert set_entry(text, ("backends", "gpu", "adapters", "a"), "/c") == text.replace("/a", '"/c"')
    assert remove_entry(text, ("backends", "gpu", "adapters", "b")) == text.replace("      b: /b\n", "")


def test_a_file_with_an_anchor_at_that_place_is_left_alone() -> None:
    text = "x: &base {backend: gpu}\nmodels:\n  a: *base\n"

    with pytest.raises(ConfigError, match="cannot be edited automatically"):
        set_entry(text, ("models", "a"), {"backend": "o"})


LIST = """keys:
  - name: a  # the first
    rpm: 5

  # the second
  - {name: b, rpm: 6}
  - name: c
    models: [x]
flow: [{name: d}, {name: e}]
"""
IN_LISTS: dict[str, tuple[Sequence[str | int], object, str]] = {
    "what is there in a block": (("keys", 0, "rpm"), 7, LIST.replace("rpm: 5", "rpm: 7")),
    "what is not there in a block": (("keys", 0, "tpm"), 7, LIST.replace("rpm: 5\n", "rpm: 5\n    tpm: 7\n")),
    "the first of a block": (("keys", 0, "name"), "z", LIST.replace("name: a ", "name: z ")),
    "in braces": (("keys", 1, "tpm"), 7, LIST.replace("rpm: 6}", "rpm: 6, tpm: 7}")),
    "a list in a list": (("keys", 2, "models"), ["x", "z"], LIST.replace("[x]", "[x, z]")),
    "in a list in brackets": (("flow", 1, "rpm"), 1, LIST.replace("{name: e}", "{name: e, rpm: 1}")),
}


@pytest.mark.parametrize(("path", "entry", "after"), IN_LISTS.values(), ids=IN_LISTS.keys())
def test_a_number_in_a_path_is_a_place_in_a_list(path: Sequence[str | int], entry: object, after: str) -> None:
    assert set_entry(LIST, path, entry) == after


OUT_OF_LISTS: dict[str, tuple[Sequence[str | int], str]] = {
    "a block": (("keys", 0), LIST.replace("  - name: a  # the first\n    rpm: 5\n", "")),
    "in braces": (("keys", 1), LIST.replace("  - {name: b, rpm: 6}\n", "")),
    "the last": (("keys", 2), LIST.replace("  - name: c\n    models: [x]\n", "")),
    "the first in brackets": (("flow", 0), LIST.replace("{name: d}, ", "")),
    "the last in brackets": (("flow", 1), LIST.replace(", {name: e}", "")),
    "a member": (("keys", 0, "rpm"), LIST.replace("    rpm: 5\n", "")),
    "one that is not there": (("keys", 3), LIST),
}


@pytest.mark.parametrize(("path", "after"), OUT_OF_LISTS.values(), ids=OUT_OF_LISTS.keys())
def test_an_item_of_a_list_is_taken_out(path: Sequence[str | int], after: str) -> None:
    assert remove_entry(LIST, path) == after


def test_what_begins_an_item_in_a_block_is_left_to_people() -> None:
    with pytest.raises(ConfigError, match=r"keys\[0\]\.name: this file cannot be edited automatically"):
        remove_entry(LIST, ("keys", 0, "name"))
