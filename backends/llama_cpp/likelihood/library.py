"""llama.cpp's own library (llama.h), which is inside xllamacpp: tokens of a text, and every logit that a model gives.

Its structures are passed by value, and only their first members are known here: they are taken as the library fills
them, in a block larger than they are. What came of the members that are set is asked for afterwards. Whoever needs the
figures holds some against another road to the same numbers.

Used by child processes that run by path, some in another environment: it needs the standard library, and numpy once
logits are read.
"""

from __future__ import annotations

import ctypes as c
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_MEMBERS = 128  # the block's size in words of eight bytes; structures of llama.h have about 20 to 40
_PIECE_BYTES = 256


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


class LibraryFailure(Exception):
    """The library did not do what it was asked for, in one sentence."""


_LogCallback = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)


def _silence(_level: int, _text: bytes, _data: int) -> None:
    pass


_SILENCE = _LogCallback(_silence)


def library() -> Path:
    """The shared library inside the package xllamacpp."""
    spec = find_spec("xllamacpp")
    folders = spec.submodule_search_locations or () if spec is not None else ()
    files = [file for folder in folders for pattern in ("*.so", "*.dylib") for file in Path(folder).glob(pattern)]
    assert files, "xllamacpp is a dependency of ours"
    return files[0]


class LlamaModel:
    """One model, its weights mapped from its file. `vocabulary`: its number of tokens; `trained`: the length of context
    that it was made for, in tokens. LibraryFailure where it cannot be loaded.
    """

    def __init__(self, library: str, model: str) -> None:
        self._library = c.CDLL(library)
        call = self.call
        call("llama_log_set", None, _LogCallback, c.c_void_p)(_SILENCE, None)
        call("llama_backend_init", None)()
        settings = call("llama_model_default_params", _Block)()
        self.weights = call("llama_model_load_from_file", c.c_void_p, c.c_char_p, _Block)(os.fsencode(model), settings)
        if not self.weights:
            raise LibraryFailure(f"llama.cpp's library does not load {Path(model).name}")
        self._vocab = call("llama_model_get_vocab", c.c_void_p, c.c_void_p)(self.weights)
        self.vocabulary = int(call("llama_vocab_n_tokens", c.c_int32, c.c_void_p)(self._vocab))
        self.trained = int(call("llama_model_n_ctx_train", c.c_int32, c.c_void_p)(self.weights))
        self._tokenize = call(
            *("llama_tokenize", c.c_int32, c.c_void_p, c.c_char_p, c.c_int32, c.c_void_p, c.c_int32, c.c_bool, c.c_bool)
        )
        self._to_piece = call(
            *("llama_token_to_piece", c.c_int32, c.c_void_p, c.c_int32, c.c_void_p, c.c_int32, c.c_int32, c.c_bool)
        )
        self._is_end = call("llama_vocab_is_eog", c.c_bool, c.c_void_p, c.c_int32)

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """The library's function of this name; AttributeError where it has none."""
        function = getattr(self._library, name)
        function.restype = result
        function.argtypes = arguments
        return function

    def tokens(self, text: str) -> list[int]:
        """A text's tokens as llama.cpp's server makes them of a prompt: with the token that begins every text where the
        model has one, and special tokens where they are written out.
        """
        data = text.encode()
        room = len(data) + 8
        while True:
            into = (c.c_int32 * room)()
            count = self._tokenize(self._vocab, data, len(data), into, room, True, True)
            if count >= 0:
                return into[:count]
            if -count <= room:
                raise LibraryFailure("llama.cpp's library does not split the text into tokens")
            room = -count

    def piece(self, token: int) -> bytes:
        """The text of one token, special ones written out. It may be a part of a character."""
        room = _PIECE_BYTES
        while True:
            into = c.create_string_buffer(room)
            size = self._to_piece(self._vocab, token, into, room, 0, True)
            if size >= 0:
                return into.raw[:size]
            room = -size

    def is_end(self, token: int) -> bool:
        """Whether a text ends with this token."""
        return bool(self._is_end(self._vocab, token))


class LlamaContext:
    """A context of `size` tokens for one text, of which at most `piece` tokens are computed at a time. One is made at a
    time: `close` gives its memory back. LibraryFailure where the library does not make one like that.
    """

    def __init__(self, model: LlamaModel, size: int, piece: int, threads: int) -> None:
        self.size, self.piece = size, piece
        self._model = model
        call = model.call
        settings = call("llama_context_default_params", _Block)()
        # The first members of the structure: n_ctx, n_batch, n_ubatch.
        first = c.cast(c.byref(settings), c.POINTER(c.c_uint32))
        first[0], first[1], first[2] = size, piece, min(piece, first[2])
        self._context = call("llama_init_from_model", c.c_void_p, c.c_void_p, _Block)(model.weights, settings)
        if not self._context:
            raise LibraryFailure(f"llama.cpp's library makes no context of {size} tokens")
        if call("llama_n_ctx", c.c_uint32, c.c_void_p)(self._context) < size:
            raise LibraryFailure("llama.cpp's library does not take the context's length as it is given")
        if call("llama_n_batch", c.c_uint32, c.c_void_p)(self._context) < min(piece, size):
            raise LibraryFailure(f"llama.cpp's library takes fewer than {piece} tokens at a time")
        call("llama_set_n_threads", None, c.c_void_p, c.c_int32, c.c_int32)(self._context, threads, threads)
        self._batch = call("llama_batch_init", _Batch, c.c_int32, c.c_int32, c.c_int32)(piece, 0, 1)
        self._memory = call("llama_get_memory", c.c_void_p, c.c_void_p)(self._context)
        self._clear = call("llama_memory_clear", None, c.c_void_p, c.c_bool)
        self._remove = call("llama_memory_seq_rm", c.c_bool, c.c_void_p, c.c_int32, c.c_int32, c.c_int32)
        self._oldest = call("llama_memory_seq_pos_min", c.c_int32, c.c_void_p, c.c_int32)
        self._decode = call("llama_decode", c.c_int32, c.c_void_p, _Batch)
        self._row = call("llama_get_logits_ith", c.POINTER(c.c_float), c.c_void_p, c.c_int32)

    def close(self) -> None:
        """Give its memory back; it is of no use afterwards."""
        self._model.call("llama_batch_free", None, _Batch)(self._batch)
        self._model.call("llama_free", None, c.c_void_p)(self._context)

    def keep(self, count: int) -> int:
        """Forget all but the first `count` tokens of the text; returns how many are kept, which is none where the model
        cannot go back (recurrent ones, and those that forget what is far behind).
        """
        if count > 0 and self._oldest(self._memory, 0) == 0 and self._remove(self._memory, 0, count, -1):
            return count
        self._clear(self._memory, True)
        return 0

    def logits(self, tokens: Sequence[int], first: int, begin: int = 0) -> Any:
        """What the model expects after each of these tokens from index `first` on, which stand in the text from `begin`
        on, behind what is kept of it: float32, one row of the vocabulary each.
        """
        import numpy as np

        batch = self._batch
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = begin + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = index >= first
        status = self._decode(self._context, batch)
        if status:
            raise LibraryFailure(f"llama_decode ended with {status}")
        rows = np.empty((len(tokens) - first, self._model.vocabulary), np.float32)
        for index in range(first, len(tokens)):
            rows[index - first] = np.ctypeslib.as_array(self._row(self._context, index), (self._model.vocabulary,))
        return rows
