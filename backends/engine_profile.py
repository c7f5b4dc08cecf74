"""What the data path has to know of a kind of engine: data only, and safe for relay processes to import.

Each kind has one `EngineProfile`, in the `profile.py` of its folder. A field says what is promised by engines that have
it set; its default is an engine of which nothing is known but that it speaks OpenAI's API. What is done with a field is
in `app`, which never asks what kind of engine it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec


class Act(StrEnum):
    """What becomes of a request's parameter."""

    DONE = "done"  # the engine does it, or refuses it itself
    ADJUSTED = "adjusted"  # the engine is told otherwise, which is named
    DROPPED = "dropped"  # the engine is not told, which is named
    REFUSED = "refused"  # a 400, since the answer would be another one


class Rule(StrEnum):
    """How a parameter is adjusted where another name is not all (app/dialects/parameters/judge.py)."""

    BEST_OF = "best_of"  # as many answers as are wanted anyway: left out; else refused
    ONLY_NAMED_TOOL = "only_named_tool"  # a tool that must be called becomes the only one, and `required`
    EFFORT_IN_TEMPLATE = "effort_in_template"  # told to the chat template
    BY_ANSWER = "by_answer"  # the answer shows whether it was done


class Fate(NamedTuple):
    """What becomes of one parameter.

    `unless`: JSON values that ask for what is done anyway. `note`: why it is refused, or what it becomes. `renamed`:
    the engine's own name for it. `rule`: how it is adjusted otherwise.
    """

    act: Act
    unless: frozenset[str] = frozenset()
    note: str = ""
    renamed: str = ""
    rule: Rule | None = None


DONE = Fate(Act.DONE)


def adjusted(note: str, *, renamed: str = "", rule: Rule | None = None) -> Fate:
    """Told to the engine otherwise."""
    return Fate(Act.ADJUSTED, frozenset(), note, renamed, rule)


def dropped(*unless: str) -> Fate:
    """Not told to the engine."""
    return Fate(Act.DROPPED, frozenset(unless))


def refused(note: str, *unless: str, rule: Rule | None = None) -> Fate:
    """A 400 that gives this reason."""
    return Fate(Act.REFUSED, frozenset(unless), note, "", rule)


class Thinking(StrEnum):
    """How an engine is told whether and how much its model is to think."""

    LEVEL = "level"  # `reasoning_effort` for a level; for yes and no there are no words
    EFFORT = "effort"  # `reasoning_effort` for all of it: `none` for no, `medium` for yes
    TEMPLATE = "template"  # both go into `chat_template_kwargs`
    TEMPLATE_AND_EFFORT = "template_and_effort"  # yes and no in `chat_template_kwargs`, a level in `reasoning_effort`


class StructuredOutput(StrEnum):
    """How an engine is told what form an answer must have, beside OpenAI's `response_format`."""

    MEMBERS = "members"  # `structured_outputs`, with a member for each kind of form
    GRAMMAR = "grammar"  # `json_schema` or `grammar`; `response_format` in chats only
    SCHEMA_ONLY = "schema_only"  # JSON schemas only, in `response_format`


class TaskApi(StrEnum):
    """How an engine is asked for ranks, scores and tokens."""

    SAME_ROUTES = "same_routes"  # by the routes that clients have here (app/dialects/tasks/tasks.py)
    LLAMA_SERVER = "llama_server"  # by those of llama.cpp's server (app/dialects/tasks/llama_cpp.py)


class TemplateApi(StrEnum):
    """How an engine shows what its chat template makes of a conversation, without writing an answer."""

    APPLY_TEMPLATE = "apply_template"  # POST /apply-template: the text
    TOKENIZE = "tokenize"  # POST /tokenize: the tokens, and how many
    DEBUG_RENDER = "debug_render"  # a chat with `_debug_render_only`: the text


class ModelNames(StrEnum):
    """What name an engine has for its model where the configuration does not say and it does not list the public one."""

    PUBLIC = "public"  # the public name
    BACKEND = "backend"  # the backend's name: we started it under that
    ONLY_LISTED = "only_listed"  # the one that it lists, where that is one


class EngineProfile(msgspec.Struct, frozen=True):
    """One kind of engine.

    `kind`: the word that an operator writes. `title`: what error messages call it. `is_local`: it runs on this machine,
    so its requests are checked for their shape and their cost before they are sent, and adjusted to what it takes.

    Its models: `ignores_model_name`: it has one model, whatever it is called. `has_tags`: `m` means `m:latest`, and
    names differ by more than case. `is_daemon`: it has many models and loads each when it is asked for. `model_names`:
    see there. `weights`: the format of its files. `abilities`: what it can do, in words for clients.

    Its requests: `parameters`: by operation, what becomes of parameters that it treats otherwise than the table of
    app/dialects/parameters/table.py says; `passes_parameters`: whatever clients write is passed, and neither the table
    nor anything else is looked at. `never_null`: parameters that are left out where they are null. `writes_at_least_one`:
    a completion of 0 tokens has one. `counts_logprobs_from_one`: 0 log probabilities of a completion are none at all.
    `streams_usage`: it knows `continuous_usage_stats`. `transcribes`: it takes sounds to write down.
    `configured_names`: its own names for sampling parameters of the configuration; None for what it does not have.
    `options`: its own names for parameters that only other dialects have. `prefill`: the members that make it go on
    from an assistant's message; None: it cannot be told to. `takes_format`: it takes a form for a completion.
    `thinking`, `structured_output`, `tasks`, `templates`: see there; None: it cannot be told.
    `max_constraint_ways`: how many ways on an answer may have at one place under a schema or grammar.
    `checks_prompt`: what cannot fit its context is refused before it is sent. `knows_template_tools`: where it says
    that a model has no tools, the model's chat template leaves them out without a word.

    `failure_marks`: words in an error of its that mean that it will answer nothing more.
    """

    kind: str = ""
    title: str = "the engine"
    is_local: bool = False
    ignores_model_name: bool = False
    has_tags: bool = False
    is_daemon: bool = False
    model_names: ModelNames = ModelNames.PUBLIC
    weights: str = ""
    abilities: str = "something else"
    parameters: Mapping[str, Mapping[str, Fate]] = {}
    passes_parameters: bool = False
    never_null: frozenset[str] = frozenset()
    writes_at_least_one: bool = False
    counts_logprobs_from_one: bool = False
    streams_usage: bool = False
    transcribes: bool = False
    configured_names: Mapping[str, str | None] = {}
    options: Mapping[str, str] = {}
    prefill: Mapping[str, Any] | None = None
    takes_format: bool = False
    thinking: Thinking = Thinking.LEVEL
    structured_output: StructuredOutput | None = None
    tasks: TaskApi | None = None
    templates: TemplateApi | None = None
    max_constraint_ways: int = 500
    checks_prompt: bool = False
    knows_template_tools: bool = False
    failure_marks: tuple[str, ...] = ()


UNKNOWN = EngineProfile(passes_parameters=True)
