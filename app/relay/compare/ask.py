"""What a comparison asks, of whom, and how the answers are to come. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from app.dialects import json_members
from app.dialects.client_api import decoded
from app.errors import Problem, bad_request
from app.relay.http import member_names
from app.routing import may_use, resolve_for, unknown_model
from app.table import Key, Table

LEAST, MOST = 2, 8  # models
_Positive = Annotated[int, Meta(ge=1, le=1 << 30)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]


class _Members(msgspec.Struct, frozen=True):
    models: list[str] | None = None
    pair: str | None = None
    model: msgspec.Raw = msgspec.Raw(b"null")
    stream: bool | None = None
    blind: bool | None = None
    force: bool | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    do_sample: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=10)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    repetition_penalty: Annotated[float, Meta(ge=0, le=10)] | None = None
    repeat_penalty: Annotated[float, Meta(ge=0, le=10)] | None = None
    seed: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)] | None = None
    max_tokens: _Positive | None = None
    max_completion_tokens: _Positive | None = None


_SAMPLING: Final = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "presence_penalty", "frequency_penalty"),
    *("repetition_penalty", "seed", "max_tokens"),
)
# What of the body no engine gets as it stands: it is ours, or every engine gets it under its own name for it.
_TAKEN_OUT: Final = (*_Members.__struct_fields__, "stream_options")
_members = msgspec.json.Decoder(_Members)


class ComparisonAsk(msgspec.Struct, frozen=True):
    """One comparison. `names`: public names, in the order of the answers; `words`: of a pair, its word for each.

    `given`: the sampling that the client wants, by the configuration's names. `chat`: the rest of its body.
    """

    names: tuple[str, ...]
    given: Mapping[str, Any]
    chat: bytes
    pair: str | None = None
    words: tuple[str, ...] | None = None
    is_stream: bool = True
    is_blind: bool = False
    is_forced: bool = False

    def body(self, name: str) -> bytes:
        """The chat request to one of the models, whose answer is always read as a stream."""
        return json_members.edit(self.chat, {"model": msgspec.json.encode(name), "stream": b"true"})


def read(body: bytes, table: Table, key: Key | None) -> ComparisonAsk:
    """What a sound JSON body asks; Problem for what is wrong in it, and for names that this key does not open."""
    asked = decoded(_members, body)
    names_of_body = member_names.members(body)
    if bytes(asked.model) != b"null":
        raise bad_request("Send 'models' (a list) or 'pair' in place of 'model'.", param="model")
    if "messages" not in names_of_body:
        raise bad_request("'messages' is missing.", param="messages", code="missing_field")
    words, names = _compared(asked, table, key)
    given = {name: value for name in _SAMPLING if (value := getattr(asked, name)) is not None}
    if asked.do_sample is False and "temperature" not in given:
        given["temperature"] = 0.0
    if asked.max_completion_tokens is not None:
        given["max_tokens"] = asked.max_completion_tokens
    if asked.repeat_penalty is not None:
        given.setdefault("repetition_penalty", asked.repeat_penalty)
    return ComparisonAsk(
        names=names,
        given=given,
        chat=json_members.edit(body, dict.fromkeys(_TAKEN_OUT)),
        pair=asked.pair,
        words=words,
        is_stream=asked.stream is not False,
        is_blind=asked.blind is True,
        is_forced=asked.force is True,
    )


def pairs_for(table: Table, key: Key | None) -> dict[str, dict[str, str]]:
    """The pairs all of whose models this key may use."""
    return {
        pair: members
        for pair, members in table.pairs.items()
        if all(may_use(key, table.aliases.get(name, name)) for name in members.values())
    }


def _compared(asked: _Members, table: Table, key: Key | None) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The words of a pair, and the public names."""
    if asked.pair is not None:
        if asked.models is not None:
            raise bad_request("Send either 'models' or 'pair', not both.", param="pair")
        known = pairs_for(table, key)
        if asked.pair not in known:
            hint = f"The pairs are: {', '.join(map(repr, known))}." if known else "No pair is configured (`pairs:`)."
            raise Problem(404, "pair_not_found", f"There is no such pair here. {hint}", param="pair")
        words, given = tuple(known[asked.pair]), list(known[asked.pair].values())
    else:
        words, given = None, asked.models or []
        if not LEAST <= len(given) <= MOST:
            message = f"'models' must list {LEAST} to {MOST} names, or 'pair' name a configured pair."
            raise bad_request(message, param="models", code="missing_field" if not given else "invalid_value")
    param = "models" if asked.pair is None else "pair"
    names = tuple(_public_name(table, key, name, param, f"{param}[{at}]") for at, name in enumerate(given))
    if len(set(names)) < len(names):
        raise bad_request("'models' must be different models.", param="models", code="invalid_value")
    return words, names


def _public_name(table: Table, key: Key | None, name: str, param: str, place: str) -> str:
    """The name itself or the one that an alias stands for. Problem (404) for one that only leads to the default model:
    what is compared must be what was named.
    """
    try:
        resolved = resolve_for(table, key, name)
    except Problem as exc:
        raise unknown_model(table, key, name, param, place) from exc
    if resolved.name not in (name, table.aliases.get(name)):
        raise unknown_model(table, key, name, param, place)
    return resolved.name
