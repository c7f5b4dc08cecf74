"""OpenAI's responses read as deltas, for clients of other dialects: chunk by chunk, or whole. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from backends.finish_reasons import LENGTH, finish
from backends.http.delta import CallDelta, Delta


class _Function(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct, frozen=True):
    index: int | None = None
    id: str | None = None
    function: _Function = _Function()


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct, frozen=True):
    index: int = 0
    delta: _Message | None = None
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: Any = None  # vLLM's: the stop sequence, or a token's number
    logprobs: Any = None


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] | None = None


_NOTHING = _Message()


class DeltaReader:
    """Reads one response, chunk by chunk or whole. `token`: what ids of calls are made of where there are none."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._calls: dict[int, int] = {}  # the engine's index → ours

    def read(self, chunk: dict[str, Any]) -> Delta:
        """What one chunk, or a whole response, says in its first choice; ValueError for what is not OpenAI's."""
        try:
            choices = msgspec.convert(chunk, _Chunk).choices or ()
        except msgspec.ValidationError as exc:
            raise ValueError("what is not a chunk of an answer") from exc
        choice = next((each for each in choices if each.index == 0), None)
        if choice is None:
            return Delta()
        message = choice.message or choice.delta or _NOTHING
        return Delta(
            text=message.content or message.refusal or choice.text or None,
            thinking=message.reasoning_content or message.reasoning or "",
            calls=tuple([self._call(call) for call in message.tool_calls or ()]),
            finish=(finish(choice.finish_reason) or LENGTH) if choice.finish_reason else None,
            stop=choice.stop_reason if isinstance(choice.stop_reason, str) else None,
            logprobs=token_logprobs(choice.logprobs),
        )

    def _call(self, call: _Call) -> CallDelta:
        # Some engines number no call; a new one then shows by its id.
        last = max(self._calls, default=-1)
        index = call.index if call.index is not None else (last + 1 if call.id or last < 0 else last)
        is_new = index not in self._calls
        at = self._calls.setdefault(index, len(self._calls))
        arguments = call.function.arguments
        if not isinstance(arguments, str | None):
            arguments = msgspec.json.encode(arguments).decode()
        return CallDelta(at, is_new, call.id or f"call_{self._token}{at}", call.function.name or "", arguments or "")


def token_logprobs(logprobs: Any) -> list[dict[str, Any]] | None:
    """One object for each token of a chat's log probabilities; None for anything else."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return content if isinstance(content, list) and all(isinstance(each, dict) for each in content) else None
