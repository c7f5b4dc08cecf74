"""What an engine's response says, piece by piece, in whichever dialect the engine responds. Pure.

It stands between the reader of an engine's stream and the encoder of a client's. Where both speak OpenAI there are no
deltas: the events pass as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec


class TokenCounts(msgspec.Struct, frozen=True):
    """The tokens of the prompt and of the response, by OpenAI's names."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class CallDelta(msgspec.Struct, frozen=True):
    """A tool call, or the next part of one.

    `at` counts a response's calls from 0; `is_new`, id and name come with a call's first part. `arguments` is JSON as
    text, of which each part continues the one before.
    """

    at: int
    is_new: bool
    id: str
    name: str
    arguments: str


class Delta(msgspec.Struct, frozen=True):
    """What one event, or a whole response, says.

    `text` is None where it does not speak of a text at all. `finish` is one of OpenAI's reasons. `stop`: the client's
    own stop sequence that ended the response, where the engine says so. `logprobs`: one object for each token, as in
    OpenAI's chats. `usage` is of the whole response, and comes once.
    """

    text: str | None = None
    thinking: str = ""
    calls: Sequence[CallDelta] = ()
    logprobs: list[dict[str, Any]] | None = None
    finish: str | None = None
    stop: str | None = None
    usage: TokenCounts | None = None
