"""A child process: all logits of given windows of tokens, by llama.cpp's own library, and what they say of a model.

Run by path with the Python of the tool environment "report" (numpy), so it imports nothing of ours; the request is one
JSON object on standard input, progress and result are JSON lines on standard output:

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

The library's structures are passed by value, and only their first members are known here: they are taken as the library
fills them, in a block larger than they are. Whoever calls holds `probes` against another road to the same numbers.
"""

from __future__ import annotations

import ctypes as c
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

_ROWS = 32  # rows that are normalised at a time, in float64
_TELL_S = 0.5
_MEMBERS = 128  # the block's size in words of eight bytes; structures of llama.h have about 20 to 40


class _Block(c.Structure):
    """A structure of the library whose members are its own business."""

    _fields_ = (("words", c.c_uint64 * _MEMBERS),)


class _Batch(c.Structure):
    """`llama_batch` of llama.h."""

    _fields_ = (
        ("n_tokens", c.c_int32),
        ("token", c.POINTER(c.c_int32)),
        ("embd", c.c_void_p),
        ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)),
        ("seq_id", c.POINTER(c.POINTER(c.c_int32))),
        ("logits", c.POINTER(c.c_int8)),
    )


class _Bad(Exception):
    """One sentence for whoever asked."""


_LogCallback = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)


def _silence(_level: int, _text: bytes, _data: int) -> None:
    pass


_SILENCE = _LogCallback(_silence)


class _Model:
    """One model with one context of `context` tokens. `vocabulary`: its number of tokens."""

    def __init__(self, library: str, model: str, threads: int, context: int) -> None:
        self._library = c.CDLL(library)
        call = self._call
        call("llama_log_set", None, _LogCallback, c.c_void_p)(_SILENCE, None)
        call("llama_backend_init", None)()
        settings = call("llama_model_default_params", _Block)()
        weights = call("llama_model_load_from_file", c.c_void_p, c.c_char_p, _Block)(os.fsencode(model), settings)
        if not weights:
            raise _Bad(f"llama.cpp's library does not load {os.path.basename(model)}")  # noqa: PTH119
        settings = call("llama_context_default_params", _Block)()
        # The first member of the structure: n_ctx. What came of it is asked for below.
        c.cast(c.byref(settings), c.POINTER(c.c_uint32))[0] = context
        self._context = call("llama_init_from_model", c.c_void_p, c.c_void_p, _Block)(weights, settings)
        if not self._context:
            raise _Bad(f"llama.cpp's library makes no context of {context} tokens")
        if call("llama_n_ctx", c.c_uint32, c.c_void_p)(self._context) < context:
            raise _Bad("llama.cpp's library does not take the context's length as it is given")
        if call("llama_n_batch", c.c_uint32, c.c_void_p)(self._context) < context:
            raise _Bad(f"llama.cpp's library takes fewer than {context} tokens at a time")
        call("llama_set_n_threads", None, c.c_void_p, c.c_int32, c.c_int32)(self._context, threads, threads)
        vocab = call("llama_model_get_vocab", c.c_void_p, c.c_void_p)(weights)
        self.vocabulary = int(call("llama_vocab_n_tokens", c.c_int32, c.c_void_p)(vocab))
        self._batch = call("llama_batch_init", _Batch, c.c_int32, c.c_int32, c.c_int32)(context, 0, 1)
        self._memory = call("llama_get_memory", c.c_void_p, c.c_void_p)(self._context)
        self._clear = call("llama_memory_clear", None, c.c_void_p, c.c_bool)
        self._decode = call("llama_decode", c.c_int32, c.c_void_p, _Batch)
        self._row = call("llama_get_logits_ith", c.POINTER(c.c_float), c.c_void_p, c.c_int32)

    def _call(self, name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(self._library, name)
        function.restype = result
        function.argtypes = arguments
        return function

    def logits(self, tokens: list[int], first: int) -> Any:
        """What the model expects after each token from index `first` on: float32, one row of the vocabulary each."""
        import numpy as np

        batch = self._batch
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = index >= first
        self._clear(self._memory, True)
        status = self._decode(self._context, batch)
        if status:
            raise _Bad(f"llama_decode ended with {status}")
        rows = np.empty((len(tokens) - first, self.vocabulary), np.float32)
        for index in range(first, len(tokens)):
            rows[index - first] = np.ctypeslib.as_array(self._row(self._context, index), (self.vocabulary,))
        return rows


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


def _difference(model: _Model, probes: list[Any]) -> float:
    """The largest difference to the engine's log probabilities, in nats; infinite where one is not a number."""
    largest = 0.0
    for tokens, pairs in probes:
        own = log_softmax(model.logits(tokens, len(tokens) - 1))[0]
        for token, expected in pairs:
            difference = abs(float(own[token]) - expected)
            largest = max(largest, difference if difference == difference else float("inf"))
    return largest


def _measure(model: _Model, request: dict[str, Any], out: Any) -> dict[str, Any]:
    """All windows, one after the other."""
    import numpy as np

    sums: dict[str, list[Any]] = {"nll": [], "kl": [], "same": []}
    total = sum(len(tokens) - first for tokens, first in request["windows"])
    last = 0.0
    # pathlib is of no use for a file that has no name any more.
    with open(request["logits"], "wb" if request["is_reference"] else "rb") as file:  # noqa: PTH123
        for tokens, first in request["windows"]:
            rows = model.logits(tokens[:-1], first - 1)
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
        model = _Model(request["library"], request["model"], request["threads"], request["context"])
        result = {"difference": _difference(model, request["probes"])}
        if result["difference"] <= request["tolerance"]:
            result |= _measure(model, request, out)
        _line(out, result=result)
    except (_Bad, OSError, AttributeError, ValueError, MemoryError) as exc:
        _line(out, error=f"logits by llama.cpp's library: {exc or type(exc).__name__}")
    out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
