"""A child process: all logits of given windows of tokens, by llama.cpp's own library, and what they say of a model.

Run by path with the Python of the tool environment "report" (numpy), so it imports nothing of ours but
backends/llama_cpp/likelihood/library.py, which needs no more; the request is one JSON object on standard input,
progress and result are JSON lines on standard output:

- `library`: the shared library inside xllamacpp, which exports llama.h; `model`, `threads`, `context` (tokens).
- `windows`: lists `[tokens, first]`: the tokens from index `first` on are predicted from all before them.
- `probes`: lists `[tokens, pairs]`: tokens that may come next, each with the log probability that the engine gives it;
  `tolerance`: how far the library may be from that, in nats, to be believed.
- `logits`: a file for the reference's logits, float32, one row of the vocabulary's size for each predicted token;
  `is_reference`: whether it is written, or read and compared with.

Result: `difference`, the largest one to the probes. Where it is within the tolerance: `nll`, for each predicted token
the negative log probability that the model gave it; `kl` and `same` (not for the reference): the KL divergence of the
model's distribution from the reference's, and whether both have the same likeliest token. Logarithms are natural.
Everything is computed window by window, so memory is bounded.

Whoever calls holds `probes` against another road to the same numbers.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[3]))  # behind everything that is installed

from backends.llama_cpp.likelihood.library import LibraryFailure, LlamaContext, LlamaModel

_ROWS = 32  # rows that are normalised at a time, in float64
_TELL_S = 0.5


def log_softmax(rows: Any) -> Any:
    """The logarithm of each row's probabilities, in float64."""
    import numpy as np

    wide = rows.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide


def compared(rows: Any, targets: Any, reference: Any | None) -> Iterator[tuple[Any, Any, Any]]:
    """Negative log probabilities of the targets, KL divergences and whether the likeliest tokens agree, _ROWS rows at a
    time; without a reference the last two are empty.
    """
    import numpy as np

    for begin in range(0, len(rows), _ROWS):
        some = slice(begin, begin + _ROWS)
        own = log_softmax(rows[some])
        nll = -own[np.arange(len(own)), targets[some]]
        if reference is None:
            yield nll, np.empty(0), np.empty(0, bool)
            continue
        other = log_softmax(reference[some])
        with np.errstate(invalid="ignore"):  # what neither expects at all: 0 * (-inf + inf)
            terms = np.exp(other) * (other - own)
        divergence = np.where(np.isneginf(other), 0.0, terms).sum(axis=1)
        yield nll, divergence, own.argmax(axis=1) == other.argmax(axis=1)


def _logits(context: LlamaContext, tokens: list[int], first: int) -> Any:
    """What the model expects after each token from index `first` on, of a text that begins with the first one."""
    context.keep(0)
    return context.logits(tokens, first)


def _difference(context: LlamaContext, probes: list[Any]) -> float:
    """The largest difference to the engine's log probabilities, in nats; infinite where one is not a number."""
    largest = 0.0
    for tokens, pairs in probes:
        own = log_softmax(_logits(context, tokens, len(tokens) - 1))[0]
        for token, expected in pairs:
            difference = abs(float(own[token]) - expected)
            largest = max(largest, difference if difference == difference else float("inf"))
    return largest


def _measure(context: LlamaContext, request: dict[str, Any], out: Any) -> dict[str, Any]:
    """All windows, one after the other."""
    import numpy as np

    sums: dict[str, list[Any]] = {"nll": [], "kl": [], "same": []}
    total = sum(len(tokens) - first for tokens, first in request["windows"])
    last = 0.0
    # pathlib is of no use for a file that has no name any more.
    with open(request["logits"], "wb" if request["is_reference"] else "rb") as file:  # noqa: PTH123
        for tokens, first in request["windows"]:
            rows = _logits(context, tokens[:-1], first - 1)
            reference = None
            if request["is_reference"]:
                rows.tofile(file)
            else:
                reference = np.fromfile(file, np.float32, rows.size).reshape(rows.shape)
            for nll, divergence, same in compared(rows, np.array(tokens[first:]), reference):
                sums["nll"] += nll.tolist()
                sums["kl"] += divergence.tolist()
                sums["same"] += same.tolist()
            done = len(sums["nll"])
            if done == total or time.monotonic() - last >= _TELL_S:
                last = time.monotonic()
                _line(out, progress={"phase": "logits", "done": done, "total": total})
        if request["is_reference"]:
            file.flush()
    return sums


def _line(out: Any, **members: Any) -> None:
    out.write(json.dumps(members) + "\n")
    out.flush()


def main() -> None:
    """Answer the one request on standard input and end, whatever threads the library has."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    try:
        model = LlamaModel(request["library"], request["model"])
        context = LlamaContext(model, request["context"], request["context"], request["threads"])
        result = {"difference": _difference(context, request["probes"])}
        if result["difference"] <= request["tolerance"]:
            result |= _measure(context, request, out)
        _line(out, result=result)
    except (LibraryFailure, OSError, AttributeError, ValueError, MemoryError) as exc:
        _line(out, error=f"logits by llama.cpp's library: {exc or type(exc).__name__}")
    out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
