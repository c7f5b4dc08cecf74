"""What the data path has to know of a kind of engine: data only, and safe for relay processes to import.

Each kind has one `EngineProfile`, in its folder's module `profile`. The defaults are those of an engine of which
nothing is known but that it has OpenAI's API. What follows from a field is in `app`, which never asks for the kind
itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec


class Act(StrEnum):
    """What becomes of a request's parameter."""

    DONE = "done"  # the engine does it, or refuses it itself
    ADJUSTED = "adjusted"  # it is sent in another form, which the response reports
    DROPPED = "dropped"  # it is left out, which the response reports
    REFUSED = "refused"  # a 400, since without it the response would be another one


class Rule(StrEnum):
    """How a parameter is adjusted where it needs more than another name (app/dialects/parameters/judge.py)."""

    BEST_OF = "best_of"  # left out where it is the number of choices anyway; else refused
    ONLY_NAMED_TOOL = "only_named_tool"  # a tool that must be called becomes the only one, with `required`
    EFFORT_IN_TEMPLATE = "effort_in_template"  # sent as an argument of the chat template
    GREEDY = "greedy"  # false: the likeliest token each time, as Hugging Face calls that
    ECHO_ALONE = "echo_alone"  # done where at most one token is written; else refused
    BY_ANSWER = "by_answer"  # only the response shows whether it was done


class Fate(NamedTuple):
    """What becomes of one parameter.

    `unless`: JSON values with which nothing has to be done, as they ask for what is done anyway. `note`: why it is
    refused, or what it becomes. `renamed`: the engine's own name for it. `rule`: how it is adjusted beyond that.
    """

    act: Act
    unless: frozenset[str] = frozenset()
    note: str = ""
    renamed: str = ""
    rule: Rule | None = None


DONE = Fate(Act.DONE)


def adjusted(note: str, *unless: str, renamed: str = "", rule: Rule | None = None) -> Fate:
    """It is sent to the engine in another form."""
    return Fate(Act.ADJUSTED, frozenset(unless), note, renamed, rule)


def dropped(*unless: str) -> Fate:
    """It is not sent to the engine."""
    return Fate(Act.DROPPED, frozenset(unless))


def refused(note: str, *unless: str, rule: Rule | None = None) -> Fate:
    """It is refused with a 400 that gives this reason."""
    return Fate(Act.REFUSED, frozenset(unless), note, "", rule)


class Thinking(StrEnum):
    """How a request says whether and how much the model is to reason."""

    LEVEL = "level"  # a level in `reasoning_effort`; on and off cannot be said
    EFFORT = "effort"  # all of it in `reasoning_effort`: `none` for off, `medium` for on
    TEMPLATE = "template"  # all of it in `chat_template_kwargs`
    TEMPLATE_AND_EFFORT = "template_and_effort"  # on and off in `chat_template_kwargs`, a level in `reasoning_effort`


class StructuredOutput(StrEnum):
    """How a request constrains the output, beside OpenAI's `response_format`."""

    MEMBERS = "members"  # `structured_outputs`, with a member for each sort of constraint
    GRAMMAR = "grammar"  # `json_schema` or `grammar`; `response_format` in chats only
    SCHEMA_ONLY = "schema_only"  # JSON schemas only, in `response_format`


class TaskApi(StrEnum):
    """The routes with which an engine ranks, scores and tokenizes."""

    SAME_ROUTES = "same_routes"  # the routes that clients have here (app/dialects/tasks/tasks.py)
    LLAMA_SERVER = "llama_server"  # those of llama.cpp's server (app/dialects/tasks/llama_cpp.py)


class TemplateApi(StrEnum):
    """How an engine shows what its chat template makes of a conversation, without generating."""

    APPLY_TEMPLATE = "apply_template"  # POST /apply-template: the text
    TOKENIZE = "tokenize"  # POST /tokenize: the tokens, and how many
    DEBUG_RENDER = "debug_render"  # a chat with `_debug_render_only`: the text


class TokenTelling(StrEnum):
    """How an engine tells the tokens of a stream beside their text."""

    NUMBERS = "numbers"  # `return_token_ids`: in each choice, and the prompt's in the first
    PROBABILITIES = "probabilities"  # the log probabilities of a token have its number


class ModelNames(StrEnum):
    """An engine's name for its model, where none is configured and the engine does not list the public name."""

    PUBLIC = "public"  # the public name
    BACKEND = "backend"  # the backend's name: we started the engine with it
    ONLY_LISTED = "only_listed"  # the name that it lists, where it lists exactly one


class EngineProfile(msgspec.Struct, frozen=True):
    """One kind of engine, as the data path has to know it.

    `kind`: the word that an operator writes. `title`: what error messages call it. `abilities`: what it can do, as the
    end of a sentence for clients. `is_local`: it runs on this machine, so the shape and the cost of its requests are
    checked before they are sent, and its requests are adjusted to what it takes. `failure_marks`: texts of an error
    response after which it will serve no more. `keeps_prefixes`: it keeps what it has computed of a prompt, and answers
    another one with the same beginning sooner.

    Of its models:
    `ignores_model_name`: it has one model, whatever a request calls it.
    `has_tags`: its name `m` means `m:latest`.
    `is_daemon`: it has many models and loads each when it is asked for.
    `model_names`: its own name for its model.
    `weights`: the format of its models' files.

    Of parameters (the table is app/dialects/parameters/table.py):
    `passes_parameters`: whatever clients send is passed on; no parameter is looked at.
    `parameters`: operation → name → what becomes of it, where that differs from the table.
    `never_null`: names that are left out where they are null.
    `configured_names`: sampling parameter of the configuration → its own name; None for one that it does not have.
    `streams_usage`: it takes `continuous_usage_stats` of `stream_options`.
    `writes_at_least_one`: with `max_tokens: 0` a completion would have one token.
    `counts_logprobs_from_one`: with `logprobs: 0` a completion would have none at all.
    `checks_prompt`: a prompt that cannot fit its context is refused before it is sent.
    `knows_template_tools`: where it reports that a model has no tools, the chat template leaves them out silently.
    `max_constraint_ways`: the most ways in which a text may go on at one place under a schema or grammar.
    `structured_output`: how a request constrains its output; None: it cannot.

    Of what other dialects have (app/dialects/engine_options.py):
    `options`: parameter → its own name.
    `prefill`: the members that make it continue an assistant's message; None: it cannot.
    `takes_format`: a completion may have constraints.
    `thinking`: how a request says whether to reason.

    Of what it does besides generating:
    `tasks`: its routes for ranks, scores and tokens; None: it has none.
    `templates`: how it shows what its chat template makes of a conversation; None: it does not.
    `transcribes`: it transcribes speech.
    `tells_tokens`: how it tells the tokens of a stream, so that another engine can go on; None: it does not.
    """

    kind: str = ""
    title: str = "the engine"
    abilities: str = "something else"
    is_local: bool = False
    failure_marks: tuple[str, ...] = ()
    keeps_prefixes: bool = False

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
    tells_tokens: TokenTelling | None = None


UNKNOWN = EngineProfile(passes_parameters=True)
