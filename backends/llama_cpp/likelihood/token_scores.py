"""How likely each token of a prompt is after those before it, and the token that comes next. Logarithms are natural.

A prompt that begins as the one before it is computed from the piece on in which they part: the choices of one question
differ in their last tokens only. numpy is loaded when a prompt is read, not before.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backends.llama_cpp.likelihood.library import LlamaContext, LlamaModel

PIECE: Final = 64  # tokens that are computed at a time; their logits are in memory together
_LEAST_CONTEXT: Final = 1024
_PENALISED: Final = 64


@dataclass(frozen=True, slots=True)
class TokenScore:
    """One token of a text, its log probability after those before it (None for the first), and the likeliest tokens at
    its place with theirs, likeliest first.
    """

    token: int
    logprob: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Drawing:
    """How the next token is drawn; `temperature` 0: the likeliest. `biases`: added to the logits of tokens. Penalties
    count the last 64 tokens, as llama.cpp's server does.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    biases: tuple[tuple[int, float], ...] = ()

    @classmethod
    def read(cls, asked: Mapping[str, Any]) -> Drawing:
        """As a request says it; what it does not say is OpenAI's default."""
        given = {
            name: float(asked[name])
            for name in ("temperature", "top_p", "min_p", "repeat_penalty", "frequency_penalty", "presence_penalty")
            if asked.get(name) is not None
        }
        biases = tuple((int(token), float(bias)) for token, bias in (asked.get("logit_bias") or {}).items())
        return cls(top_k=int(asked.get("top_k") or 0), biases=biases, **given)


def scores_of(rows: Any, tokens: Sequence[int], top: int) -> list[TokenScore]:
    """What rows of logits say of the tokens that follow each of them, with the `top` likeliest."""
    import numpy as np

    scores = []
    for row, token in zip(rows, tokens, strict=True):
        highest = float(row.max())
        total = highest + math.log(float(np.exp(row - highest).sum(dtype=np.float64)))
        likeliest: tuple[tuple[int, float], ...] = ()
        if top == 1:
            likeliest = ((int(row.argmax()), highest - total),)
        elif top:
            best = np.argpartition(row, -min(top, len(row)))[-min(top, len(row)) :]
            ordered = sorted(best.tolist(), key=lambda each: (-float(row[each]), each))
            likeliest = tuple((each, float(row[each]) - total) for each in ordered)
        scores.append(TokenScore(token, float(row[token]) - total, likeliest))
    return scores


def drawn(row: Any, before: Sequence[int], sampling: Drawing, dice: float) -> int:
    """The token that follows those `before`, drawn from a row of logits by `dice`, a number from 0 up to 1."""
    import numpy as np

    row = _penalised(row.astype(np.float64), before, sampling)
    if sampling.temperature <= 0:
        return int(row.argmax())
    order = np.argsort(-row, kind="stable")
    wide = row[order] / sampling.temperature
    shares = np.exp(wide - wide[0])
    shares /= shares.sum()
    kept = len(shares)
    if sampling.top_k > 0:
        kept = min(kept, sampling.top_k)
    if sampling.top_p < 1:
        kept = min(kept, int(np.searchsorted(shares.cumsum(), sampling.top_p)) + 1)
    if sampling.min_p > 0:
        kept = min(kept, int((shares >= sampling.min_p * shares[0]).sum()))
    sums = shares[: max(1, kept)].cumsum()
    return int(order[min(int(np.searchsorted(sums, dice * sums[-1], side="right")), len(sums) - 1)])


def _penalised(row: Any, before: Sequence[int], sampling: Drawing) -> Any:
    for token, bias in sampling.biases:
        if 0 <= token < len(row):
            row[token] += bias
    for token, count in Counter(before[-_PENALISED:]).items():
        row[token] *= sampling.repeat_penalty if row[token] <= 0 else 1 / (sampling.repeat_penalty or 1)
        row[token] -= count * sampling.frequency_penalty + sampling.presence_penalty
    return row


class PromptReader:
    """Reads prompts with one model, one after the other. `limit`: tokens that a prompt has at most. `afford` is called
    before memory is taken for a context of so many tokens, and may raise.
    """

    def __init__(self, model: LlamaModel, threads: int, limit: int, afford: Callable[[int], None]) -> None:
        self.limit = limit
        self._afford = afford
        self._model = model
        self._threads = threads
        self._context: LlamaContext | None = None
        self._read: list[TokenScore] = []  # what the context holds, with what was said of it
        self._top = 0

    def read(
        self, tokens: Sequence[int], top: int | None, *, is_continued: bool, go_on: Callable[[], None]
    ) -> tuple[list[TokenScore], Any]:
        """What the model says of each token, with the `top` likeliest (None: nothing is asked of the tokens), and the
        row of logits of the token that would come next, None where it is not asked for.

        `go_on` is called before each piece, and may raise to end it.
        """
        if top is None and not is_continued:
            return [TokenScore(token) for token in tokens], None
        context = self._room_for(len(tokens))
        common = self._common(tokens) if top is not None and top == self._top else 0
        scores = self._read[:common] or [TokenScore(tokens[0])]
        self._read = []  # until all of it is computed, nothing of it counts
        # Whole pieces only: in which company a token is computed shows in its last digits, and they are to be the same
        # whatever was asked before.
        begin = context.keep((max(1, common) - 1) // PIECE * PIECE)
        scores = scores[: begin + 1]
        end = len(tokens) if is_continued else len(tokens) - 1
        row = None
        while begin < end:
            go_on()
            stop = min(begin + context.piece, end)
            following = tokens[begin + 1 : stop + 1]
            rows = context.logits(tokens[begin:stop], 0 if top is not None else stop - begin - 1, begin)
            if top is not None:
                scores += scores_of(rows[: len(following)], following, top)
            begin, row = stop, rows[-1]
        if top is None:
            return [TokenScore(token) for token in tokens], row
        self._read, self._top = list(scores), top
        return scores, row if is_continued else None

    def _common(self, tokens: Sequence[int]) -> int:
        """How many tokens this prompt has in common with the one that the context holds, from the first on."""
        count = 0
        for score, token in zip(self._read, tokens, strict=False):
            if score.token != token:
                break
            count += 1
        return count

    def _room_for(self, count: int) -> LlamaContext:
        """A context that holds so many tokens. It grows by doubling: its memory is taken when it is made."""
        if self._context is not None and self._context.size >= count:
            return self._context
        size = _LEAST_CONTEXT
        while size < count:
            size *= 2
        if self._context is not None:
            self._context.close()
            self._context, self._read = None, []
        size = min(size, max(self.limit, count))
        self._afford(size)
        self._context = LlamaContext(self._model, size, PIECE, self._threads)
        return self._context
