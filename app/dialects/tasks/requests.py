"""Requests to rerank, score, tokenize and detokenize: which of their fields are read, and which an engine gets. Pure.

An engine gets only the fields that are listed here: texts, but no template, no options of processors, no URL of a
picture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from app.dialects import json_members
from app.dialects.client_api import decoded
from app.dialects.parameters.adjust import REFUSED
from app.dialects.validation.messages import NOTHING, check_messages, check_tools
from app.errors import bad_request

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")  # fit for a header
_SWITCHES: Final = ("enable_thinking", "thinking", "reasoning_effort")
_PASSED: Final = (
    *("max_tokens_per_query", "max_tokens_per_doc", "truncate_prompt_tokens", "truncation_side"),
    *("instruction", "use_activation", "user"),
)
_LISTED: Final[dict[str, tuple[str, ...]]] = {
    "rerank": ("query", "documents", "top_n", *_PASSED),
    "score": ("text_1", "text_2", "queries", "documents", "items", "data_1", "data_2", *_PASSED),
    "tokenize": (
        *("prompt", "messages", "tools", "add_special_tokens", "return_token_strs"),
        *("add_generation_prompt", "continue_final_message", "chat_template_kwargs"),
    ),
    "detokenize": ("tokens",),
    "evaluation": ("messages", "max_length"),
    "tokenizer_info": (),
}


class Ranking(msgspec.Struct, frozen=True):
    """`/v1/rerank`: documents in the order of how well they fit a query; `top_n` 0: all of them."""

    query: str
    documents: str | list[str]
    top_n: int = 0


class Scoring(msgspec.Struct, frozen=True):
    """`/v1/score`: how well texts fit each other; vLLM has three names for the left side, and four for the right."""

    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None
    queries: str | list[str] | None = None
    documents: str | list[str] | None = None
    items: str | list[str] | None = None
    data_1: str | list[str] | None = None
    data_2: str | list[str] | None = None

    def pairs(self) -> tuple[list[str], list[str]]:
        """The texts of both sides, as many left as right. Problem (400) where they cannot be paired."""
        left = next((side for side in (self.text_1, self.queries, self.data_1) if side is not None), None)
        right = next(
            (side for side in (self.text_2, self.documents, self.items, self.data_2) if side is not None), None
        )
        if left is None or right is None:
            raise bad_request("'text_1' and 'text_2' are needed.", param="text_1", code="missing_field")
        lefts, rights = ([side] if isinstance(side, str) else side for side in (left, right))
        lefts = lefts * len(rights) if len(lefts) == 1 else lefts
        if len(lefts) != len(rights) or not lefts:
            raise bad_request("'text_1' must be one text, or as many as 'text_2'.", param="text_1")
        return lefts, rights


class _Part(msgspec.Struct, frozen=True):
    type: str
    text: str | None = None


class _Message(msgspec.Struct, frozen=True):
    content: str | list[_Part] | None = None


class Tokenizing(msgspec.Struct, frozen=True):
    """`/v1/tokenize`: the tokens of a text or of a conversation."""

    prompt: str | None = None
    messages: list[_Message] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    chat_template_kwargs: dict[str, msgspec.Raw] | None = None


class Detokenizing(msgspec.Struct, frozen=True):
    """`/v1/detokenize`: the text of tokens."""

    tokens: list[int]


class Evaluating(msgspec.Struct, frozen=True):
    """LLaMA-Factory's `/v1/score/evaluation`: a reward model's score of each text, of `max_length` tokens at most."""

    messages: list[str]
    max_length: int | None = None


class Describing(msgspec.Struct, frozen=True):
    """`/tokenizer_info`: what a model's tokenizer is."""


TaskBody = Ranking | Scoring | Tokenizing | Detokenizing | Evaluating | Describing
_DECODERS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    "rerank": msgspec.json.Decoder(Ranking),
    "score": msgspec.json.Decoder(Scoring),
    "tokenize": msgspec.json.Decoder(Tokenizing),
    "detokenize": msgspec.json.Decoder(Detokenizing),
    "evaluation": msgspec.json.Decoder(Evaluating),
    "tokenizer_info": msgspec.json.Decoder(Describing),
}


class Task(msgspec.Struct, frozen=True):
    """One such request, understood. `fields`: those that an engine gets. `dropped`: the client's other fields."""

    operation: str
    fields: Mapping[str, msgspec.Raw]
    asked: TaskBody
    dropped: tuple[str, ...]


def read(operation: str, body: bytes, *, is_local: bool = False) -> Task:
    """The task that a valid JSON body asks for; Problem (400) for one that is not such a request. `is_local`: the
    engine is on this machine, so the shape of a conversation is checked.
    """
    asked: TaskBody = decoded(_DECODERS[operation], body)
    members = {
        name: value for name, value in json_members.decode(body).items() if bytes(memoryview(value)[:4]) != b"null"
    }
    for name in REFUSED:
        if name in members:
            raise bad_request(f"'{name}' cannot be set by clients.", param=name, code="not_supported")
    if isinstance(asked, Scoring):
        asked.pairs()
    if isinstance(asked, Evaluating):
        _check_evaluating(asked)
    if isinstance(asked, Tokenizing):
        _check_tokenizing(asked)
        if is_local and asked.messages is not None:
            check_messages(members["messages"])
            check_tools(members.get("tools", NOTHING))
    listed = _LISTED[operation]
    fields = {name: value for name, value in members.items() if name in listed}
    dropped = tuple(name for name in members if name not in listed and name != "model" and _NAME.match(name))
    return Task(operation, fields, asked, dropped)


def _check_evaluating(asked: Evaluating) -> None:
    if not asked.messages:
        raise bad_request("'messages' is empty.", param="messages")
    if asked.max_length is not None and asked.max_length < 1:
        raise bad_request("'max_length' must be 1 or more.", param="max_length")


def _check_tokenizing(asked: Tokenizing) -> None:
    if (asked.prompt is None) == (asked.messages is None):
        raise bad_request("Either 'prompt' or 'messages' is needed.", param="prompt", code="missing_field")
    for message in asked.messages or ():
        if not isinstance(message.content, list):
            continue
        if any(part.type != "text" or part.text is None for part in message.content):
            raise bad_request("Only texts can be tokenized.", param="messages", code="not_supported")
    for name in asked.chat_template_kwargs or ():
        if name not in _SWITCHES:
            message_ = "Of 'chat_template_kwargs' clients can set only switches of thinking."
            raise bad_request(message_, param="chat_template_kwargs", code="not_supported")
