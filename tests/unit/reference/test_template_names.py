"""The names of LLaMA-Factory's templates, as they are given on the command line."""

from __future__ import annotations

import pytest

from app.reference.reference import ReferenceProblem, check_name

NAMES = ("qwen3", "llama3", "mistral", "alpaca", "aquila")


def test_names_that_are_like_it_are_offered_and_no_others() -> None:
    with pytest.raises(ReferenceProblem, match=r"no template 'quen3' \(near it: qwen3\); "):
        check_name("quen3", NAMES)
    with pytest.raises(ReferenceProblem, match=r"no template 'nosuch'; .* `--template list` names all"):
        check_name("nosuch", NAMES)


def test_list_names_all() -> None:
    with pytest.raises(ReferenceProblem, match=r"these templates: alpaca, aquila, llama3, mistral, qwen3$"):
        check_name("list", NAMES)


def test_a_known_name_and_none_are_taken() -> None:
    for name in ("qwen3", None):
        check_name(name, NAMES)

    with pytest.raises(ReferenceProblem):
        check_name("qwen3", ())
