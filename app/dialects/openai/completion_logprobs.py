"""Log probabilities of a text completion, from the shape of chats to lists side by side as OpenAI has them. Pure."""

from __future__ import annotations

import codecs
from typing import Any


class Offsets:
    """Where each token of one choice begins in its text, piece by piece. Tokens may be parts of a character."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._at = 0
        self.is_begun = False

    def next(self, token: str, data: Any) -> int:
        """Where the next token begins, in characters; `data`: its bytes, where the engine gives them."""
        begin, self.is_begun = self._at, True
        try:
            self._at += len(self._decoder.decode(bytes(data))) if data else len(token)
        except (TypeError, ValueError):
            self._at += len(token)
        return begin


def as_lists(choice: dict[str, Any], offsets: Offsets) -> bool:
    """Turn the log probabilities of a completion's choice into lists, in place; whether anything changed.

    ValueError for an entry without a token.
    """
    given = choice.get("logprobs")
    if not isinstance(given, dict) or "tokens" in given or not isinstance(given.get("content"), list):
        return False
    lists: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for entry in given["content"]:
        token = entry.get("token") if isinstance(entry, dict) else None
        if not isinstance(token, str):
            raise ValueError("log probabilities without tokens")
        lists["tokens"].append(token)
        lists["token_logprobs"].append(entry.get("logprob"))
        lists["top_logprobs"].append(_most_likely(entry, token))
        lists["text_offset"].append(offsets.next(token, entry.get("bytes")))
    choice["logprobs"] = lists
    return True


def _most_likely(entry: dict[str, Any], token: str) -> dict[str, Any]:
    """Token → log probability of the likeliest, and of the one that was taken, which need not be one of them."""
    tops = entry.get("top_logprobs")
    likeliest = {
        top["token"]: top.get("logprob")
        for top in (tops if isinstance(tops, list) else ())
        if isinstance(top, dict) and isinstance(top.get("token"), str)
    }
    likeliest.setdefault(token, entry.get("logprob"))
    return likeliest
