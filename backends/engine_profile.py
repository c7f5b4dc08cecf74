"""What the data path has to know of a kind of engine: data only, and safe for relay processes to import.

Each kind has one `EngineProfile`, in its folder's module `profile`. A field says what is promised by engines that have
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
    """An engine's name for its model, where the configuration does not say and it does not list the public name."""

    PUBLIC = "public"  # the public name
    BACKEND = "backend"  # the backend's name: we started it under that
    ONLY_LISTED = "only_listed"  # the one that it lists, where that is one


class EngineProfile(msgspec.Struct, frozen=True):
    """One kind of engine, as the data path has to know it.

    `kind`: the word that an operator writes. `title`: what error messages call it. `abilities`: what it can do, in
    words for clients. `is_local`: it runs on this machine, so the shape and the cost of its requests are checked before
    they are sent, and its requests are adjusted to what it takes. `failure_marks`: words of an error response after
    which it will answer no more.

    Of its models:
    `ignores_model_name`: it has one model, whatever a request calls it.
    `has_tags`: its name `m` means `m:latest`.
    `is_daemon`: it has many models and loads each when it is asked for.
    `model_names`: its own name for its model.
    `weights`: the format of its models' files.

    Of parameters (the table is app/dialects/parameters/table.py):
    `passes_parameters`: whatever clients write is passed; no parameter is looked at.
    `parameters`: operation → name → what becomes of it, where that is not as in the table.
    `never_null`: names that are left out where they are null.
    `configured_names`: sampling parameter of the configuration → its own name; None for what it does not have.
    `streams_usage`: it knows `continuous_usage_stats` of `stream_options`.
    `writes_at_least_one`: a completion of at most 0 tokens would have one.
    `counts_logprobs_from_one`: 0 log probabilities of a completion would be none at all.
    `checks_prompt`: what cannot fit its context is refused before it is sent.
    `knows_template_tools`: where it says that a model has no tools, the chat template leaves them out without a word.
    `max_constraint_ways`: the most ways on that an answer may have at one place under a schema or grammar.
    `structured_output`: how it is told what form an answer must have; None: it cannot be told.

    Of what other dialects have (app/dialects/engine_options.py):
    `options`: parameter → its own name.
    `prefill`: the members that make it go on from an assistant's message; None: it cannot be told to.
    `takes_format`: a completion may have a form.
    `thinking`: how it is told whether to think.

    Of what it does besides writing:
    `tasks`: how it is asked for ranks, scores and tokens; None: it has none of it.
    `templates`: how it shows what its chat template makes of a conversation; None: it does not.
    `transcribes`: it takes sounds to write down.
    """

    kind: str = ""
    title: str = "the engine"
    abilities: str = "something else"
    is_local: bool = False
    failure_marks: tuple[str, ...] = ()

    ignores_model_name: bool = False
    has_tags: bool = False
    is_daemon: bool = False
    model_names: ModelNames = ModelNames.PUBLIC
    weights: str = ""

    passes_parameters: bool = False
    parameters: Mapping[str, Mapping[str, Fate]] = {}
    never_null: frozenset[str] = frozenset()
    configured_names: Mapping[str, str | None] = {}
    streams_usage: bool = False
    writes_at_least_one: bool = False
    counts_logprobs_from_one: bool = False
    checks_prompt: bool = False
    knows_template_tools: bool = False
    max_constraint_ways: int = 500
    structured_output: StructuredOutput | None = None

    options: Mapping[str, str] = {}
    prefill: Mapping[str, Any] | None = None
    takes_format: bool = False
    thinking: Thinking = Thinking.LEVEL

    tasks: TaskApi | None = None
    templates: TemplateApi | None = None
    transcribes: bool = False


UNKNOWN = EngineProfile(passes_parameters=True)
