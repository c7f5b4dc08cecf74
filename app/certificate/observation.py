"""What was seen of one served model: values that travel as JSON between the supervisor and whoever judges them."""

from __future__ import annotations

from typing import Any

import msgspec


class SeenPrompt(msgspec.Struct, frozen=True):
    """The prompt that the engine builds of one chat. `tokens`: None where it does not tell them. `expected_tokens`: the
    reference's prompt as the same engine splits it. `refused`: why there is none.
    """

    text: str | None = None
    tokens: tuple[int, ...] | None = None
    expected_tokens: tuple[int, ...] | None = None
    refused: str | None = None


class Candidate(msgspec.Struct, frozen=True):
    """One token that could come next; `logprob` is its natural logarithm."""

    text: str
    logprob: float


class SeenToken(msgspec.Struct, frozen=True):
    """One token of an answer, and the likeliest in its place, likeliest first."""

    text: str
    logprob: float
    top: tuple[Candidate, ...] = ()


class SeenAnswer(msgspec.Struct, frozen=True):
    """A greedy answer to one chat. `finish`: why it ended; `refused`: why there is none."""

    text: str = ""
    tokens: tuple[SeenToken, ...] = ()
    finish: str | None = None
    refused: str | None = None


class SeenStop(msgspec.Struct, frozen=True):
    """Whether the engine ends where a text is generated that must end an answer. `ends`: None where that cannot be
    asked, and `why` says so.
    """

    ends: bool | None = None
    why: str | None = None


class SeenContext(msgspec.Struct, frozen=True):
    """The context length. `claimed`: in tokens, as the engine reports it. `of_model`: what the model itself has.
    `asked`: the length of a prompt that was sent to see whether it is taken (`takes`); `refuses_more`: whether one that
    is longer than claimed is refused. None: not asked.
    """

    claimed: int | None = None
    of_model: int | None = None
    asked: int | None = None
    takes: bool | None = None
    refuses_more: bool | None = None


class SeenSampling(msgspec.Struct, frozen=True):
    """What an answer is drawn with. `engine`: by the engine's own account, when it is told nothing. `defaults` and
    `overrides`: what the gateway adds, and puts in place of what a client says. `is_so`: a request without parameters
    and one that spells them out gave the same answer with the same seed; None: not seen. `obeys`: top_p changes an
    answer.
    """

    engine: dict[str, float] | None = None
    defaults: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    is_so: bool | None = None
    obeys: bool | None = None


class SeenFile(msgspec.Struct, frozen=True):
    """The weights that the engine was started with. `sha256`: of them. `source`: the digest of the checkpoint that they
    were made from, where the file says so. `has_template`: whether they bring a chat template, None where that is not
    known; `template_is_given`: the settings name another one.
    """

    path: str | None = None
    sha256: str | None = None
    source: str | None = None
    has_template: bool | None = None
    template_is_given: bool = False
    bos: int | None = None
    bos_text: str | None = None


class Observation(msgspec.Struct, frozen=True):
    """Everything that was seen of the public name `model`, whose `backend` is of this `kind`.

    `serving`: the digest of what answers are made from, None while nobody knows; `identity`: the same text, the same
    engines, files and rules by their settings and time stamps. `prompts` and `answers` are by the chats' names, `stops`
    by text.
    """

    model: str
    backend: str
    kind: str
    title: str
    version: str | None = None
    serving: str | None = None
    identity: str | None = None
    quantization: str | None = None
    architecture: str | None = None
    file: SeenFile = SeenFile()
    prompts: dict[str, SeenPrompt] = {}
    answers: dict[str, SeenAnswer] = {}
    stops: dict[str, SeenStop] = {}
    context: SeenContext = SeenContext()
    sampling: SeenSampling = SeenSampling()


class ChatQuestion(msgspec.Struct, frozen=True):
    """A chat to be shown to the engine. `expected`: the prompt that it should make of it."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []
    expected: str | None = None


class Questions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be observed; what is empty is not asked.

    `prompts` and `answers`: chats by name; answers have up to `max_tokens` tokens. `stops`: texts that must end an
    answer. `context`: the length of a prompt that must be taken; 0: only what the engine claims. `sampling`: draw
    answers to see by what they are drawn. `hashes`: read the weights to the end for their digest.
    """

    prompts: dict[str, ChatQuestion] = {}
    answers: dict[str, ChatQuestion] = {}
    max_tokens: int = 64
    stops: tuple[str, ...] = ()
    context: int | None = None
    sampling: bool = False
    hashes: bool = False
