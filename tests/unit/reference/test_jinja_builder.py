"""app/reference/jinja_builder.py and what it is made of, on templates that LLaMA-Factory's own code described."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.reference.jinja_builder import chat_template
from app.reference.jinja_text import each, literal, put, say, slots, when
from app.reference.tool_formats import NotExpressible
from tests import ROOT

RECORDED = ROOT / "tests/recorded/llamafactory"
TEMPLATES: dict[str, Any] = json.loads((RECORDED / "templates.json").read_text())


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_written_as_it_was_when_it_was_held_against_llamafactory(name: str) -> None:
    assert chat_template(TEMPLATES[name]) + "\n" == (RECORDED / f"{name}.jinja").read_text()


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_line_is_one_statement_that_strips_what_is_around_it(name: str) -> None:
    lines = chat_template(TEMPLATES[name]).splitlines()

    assert [line for line in lines if not line.strip().startswith(("{%-", "{{-"))] == []
    assert [line for line in lines if not line.endswith(("-%}", "-}}"))] == []


def test_without_tools_the_template_refuses_them_and_nothing_else_changes() -> None:
    source = chat_template(TEMPLATES["qwen3"], with_tools=False)

    assert source.count("raise_exception('this model") == 2
    assert "<tools>" not in source


def test_a_thoughtless_training_begins_every_answer_with_an_empty_thought() -> None:
    source = chat_template(TEMPLATES["qwen3"] | {"enable_thinking": False})

    assert source.endswith(r"{{- '<think>\n\n</think>\n\n' -}}")
    assert "enable_thinking" not in source


def test_thoughts_stay_where_training_kept_them() -> None:
    assert "thought" not in chat_template(TEMPLATES["qwen3"] | {"preserve_thinking": True})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"classes": ["TomorrowsTemplate", "Template"]}, "of a kind that is not known here (TomorrowsTemplate)"),
        ({"instructions": ["x", "x"]}, "writes tools in another way than is known here"),
    ],
)
def test_what_is_not_known_is_not_expressed(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(NotExpressible) as caught:
        chat_template(TEMPLATES["qwen3"] | change)

    assert sentence in str(caught.value)


def test_an_unknown_tool_format_is_not_expressed() -> None:
    described = json.loads(json.dumps(TEMPLATES["qwen3"]))
    described["formats"]["function"]["tool_format"] = "tomorrows"

    with pytest.raises(NotExpressible, match="its tool format 'tomorrows' is not known here"):
        chat_template(described)


def test_a_default_system_prompt_stands_for_an_empty_one() -> None:
    source = chat_template(TEMPLATES["default"] | {"default_system": "It's\n\\"})

    assert r"{%- set system = 'It\'s\n\\' -%}" in source
    assert "{%- if not system -%}" in source


@pytest.mark.parametrize(
    ("text", "written"),
    [("", "''"), ("a'b", r"'a\'b'"), ("a\\n\n", r"'a\\n\n'"), ("\t{{x}}", r"'\t{{x}}'"), ("度", "'度'")],
)
def test_a_literal_has_no_line_break_and_ends_where_it_should(text: str, written: str) -> None:
    assert literal(text) == written


def test_slots_are_texts_places_and_tokens() -> None:
    parts = ["<u>{{content}}\n", {"special": "eos_token"}, {"special": "bos_token"}, {"token": "<x>"}, "{{content}}"]

    expressions = slots(parts, {"eos_token": "</s>", "bos_token": None}, "text")

    assert expressions == ["'<u>'", "text", r"'\n'", "'</s>'", "'<x>'", "text"]


def test_statements_are_nested_by_two_spaces_and_nothing_is_said_of_nothing() -> None:
    lines = when(("a", each("x", "y", [say("''"), put("b", "1")])), ("c", [say("x", "'z'")]), otherwise=[])

    assert lines == [
        "{%- if a -%}",
        "  {%- for x in y -%}",
        "    {%- set b = 1 -%}",
        "  {%- endfor -%}",
        "{%- elif c -%}",
        "  {{- x + 'z' -}}",
        "{%- endif -%}",
    ]
