"""The process that tells how likely prompts are: `POST /v1/completions` with `echo`, on a listening socket that it
inherits. It answers one request after the other, and ends when none has come for a while.

Started by path with `python -I` by the thread in the engine's process (door.py), whose file of weights it maps, too:
the system keeps their pages once. Standard input is open as long as the engine lives. On standard output it writes `+`
before each piece of work and `.` when it waits. The model is loaded for the first request.
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import json
import os
import random
import select
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[3]))  # behind everything that is installed

from backends.llama_cpp.child import KEY_VARIABLE
from backends.llama_cpp.gguf_header import Unreadable, shape
from backends.llama_cpp.likelihood import completion
from backends.llama_cpp.likelihood.completion import BadRequest, EchoRequest
from backends.llama_cpp.likelihood.library import LibraryFailure, LlamaModel, library
from backends.llama_cpp.likelihood.token_scores import PromptReader, TokenScore, drawn, scores_of

_HEAD_BYTES = 64 * 1024
_READ_S = 30.0  # for a whole request, and for each part of its response to be taken
_PROCESS_BYTES = 400_000_000  # Python, numpy, and the logits of a piece with a vocabulary of 150,000 tokens
_KV_BYTES = 2  # keys and values are kept as f16
_STATUS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 500: "Error", 503: "Unavailable"}


class _Left(Exception):
    """The client has closed its connection."""


class _Unavailable(Exception):
    """It cannot be computed now, in one sentence."""


def needed_bytes(model: Path, tokens: int) -> int:
    """The memory that this process takes beside the weights, with a context of so many tokens; 0 where the model's file
    does not tell.
    """
    try:
        return _PROCESS_BYTES + shape(model).kv_width * tokens * _KV_BYTES
    except (OSError, Unreadable):
        return 0


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """The memory that programs may take without swapping; None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


class _Reading:
    """The model, once it is loaded. `limit`: tokens that a prompt and what follows it may have; 0: the model's own."""

    def __init__(self, model: str, threads: int, limit: int) -> None:
        self._model = model
        self._threads = threads
        self._limit = limit
        self._loaded: tuple[LlamaModel, PromptReader] | None = None

    def load(self) -> tuple[LlamaModel, PromptReader]:
        """Once; LibraryFailure where it cannot be loaded."""
        if self._loaded is None:
            model = LlamaModel(str(library()), self._model)
            self._loaded = model, PromptReader(model, self._threads, self._limit or model.trained, self._afford)
        return self._loaded

    def _afford(self, tokens: int) -> None:
        """_Unavailable where there is no memory for a context of so many tokens."""
        needed, free = needed_bytes(Path(self._model), tokens), available_bytes()
        if free is not None and needed > free:
            raise _Unavailable(
                f"the likelihood of a prompt needs {needed / 1e9:.1f} GB of memory beside the engine, and "
                f"{free / 1e9:.1f} GB are free: unload another model, or send a shorter prompt"
            )

    def answer(self, asked: EchoRequest, go_on: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """The choices and the usage; BadRequest for a prompt that cannot be read."""
        model, reader = self.load()
        prompts = [(each, _tokens(model, reader, each, asked)) for each in asked.prompts]
        choices: list[dict[str, Any]] = []
        written = 0
        for prompt, tokens in prompts:
            scores, row = reader.read(tokens, asked.top, is_continued=asked.is_continued, go_on=go_on)
            completion.check_numbers(scores)
            text = prompt if isinstance(prompt, str) else None
            for _ in range(asked.copies):
                following = None
                if row is not None:
                    seed = None if asked.seed is None else asked.seed + len(choices)
                    token = drawn(row, tokens, asked.sampling, random.Random(seed).random())  # noqa: S311
                    following = scores_of([row], [token], asked.top)[0] if asked.top is not None else TokenScore(token)
                    completion.check_numbers([following])
                    written += 1
                is_end = following is not None and model.is_end(following.token)
                choices.append(
                    completion.choice(len(choices), text, scores, following, model.piece, asked, is_end=is_end)
                )
        read = sum(len(tokens) for _, tokens in prompts)
        return choices, {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _tokens(model: LlamaModel, reader: PromptReader, prompt: str | tuple[int, ...], asked: EchoRequest) -> list[int]:
    tokens = model.tokens(prompt) if isinstance(prompt, str) else list(prompt)
    if not tokens:
        raise BadRequest("'prompt' has no tokens, so there is nothing to tell of it.", param="prompt")
    if any(token >= model.vocabulary for token in tokens):
        raise BadRequest("'prompt' holds a number that is not a token of this model.", param="prompt")
    if len(tokens) + asked.is_continued > reader.limit:
        message = "the request exceeds the available context size"
        size = {"n_prompt_tokens": len(tokens) + asked.is_continued, "n_ctx": reader.limit}
        raise BadRequest(message, **{"type": "exceed_context_size_error", **size})
    return tokens


class _Server:
    """The loop over connections. `say` writes to whoever watches this process."""

    def __init__(self, listener: socket.socket, key: str, alias: str, reading: _Reading, say: Any) -> None:
        self._listener = listener
        self._key = key
        self._alias = alias
        self._reading = reading
        self._say = say

    def serve(self, idle_s: float) -> None:
        """Until no connection has come for so many seconds."""
        while True:
            self._say(b".")
            self._listener.settimeout(idle_s)
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                return
            self._say(b"+")
            with connection, contextlib.suppress(OSError, _Left):
                connection.settimeout(_READ_S)
                self._respond(connection)

    def _respond(self, connection: socket.socket) -> None:
        def go_on() -> None:
            self._say(b"+")
            if select.select([connection], [], [], 0)[0] and not connection.recv(1, socket.MSG_PEEK):
                raise _Left

        try:
            path, headers, body = _request(connection)
            go_on()
            if not hmac.compare_digest(headers.get("authorization", "").encode(), f"Bearer {self._key}".encode()):
                return _send(connection, 401, _error("another key is needed", 401))
            if path != "/v1/completions":
                return _send(connection, 404, _error("there is no such route", 404))
            self._complete(connection, body, go_on)
        except BadRequest as exc:
            _send(connection, 400, {"error": exc.error})
        except _Unavailable as exc:
            _send(connection, 503, _error(str(exc), 503))
        except (LibraryFailure, ValueError, MemoryError, AttributeError) as exc:
            _send(connection, 500, _error(str(exc) or type(exc).__name__, 500))

    def _complete(self, connection: socket.socket, body: bytes, go_on: Any) -> None:
        try:
            fields = json.loads(body)
        except ValueError as exc:
            raise BadRequest("The body is not JSON.") from exc
        if not isinstance(fields, dict):
            raise BadRequest("The body is not a JSON object.")
        asked = completion.read(fields)
        choices, usage = self._reading.answer(asked, go_on)
        name = f"cmpl-{random.getrandbits(128):032x}"
        whole = completion.answer(name, int(time.time()), self._alias, choices, usage)
        if asked.is_stream:
            stream = b"".join(completion.events(whole, wants_usage=asked.wants_usage))
            _send(connection, 200, stream, "text/event-stream")
        else:
            _send(connection, 200, whole)


def _error(message: str, status: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": "server_error", "code": status}}


def _request(connection: socket.socket) -> tuple[str, Mapping[str, str], bytes]:
    """Path, headers and body of the one request on this connection; _Left where it is cut short."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        if len(data) > _HEAD_BYTES:
            raise BadRequest("The head of the request is too long.")
        data += _more(connection)
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = int(headers.get("content-length", "0"))
    parts, size = [data[end + 4 :]], len(data) - end - 4
    while size < length:
        parts.append(_more(connection))
        size += len(parts[-1])
    path = first.split(" ")[1] if first.count(" ") == 2 else ""
    return path, headers, b"".join(parts)[:length]


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 20)
    if not data:
        raise _Left
    return data


def _send(connection: socket.socket, status: int, body: bytes | dict[str, Any], kind: str = "application/json") -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} {_STATUS[status]}\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n"
    connection.sendall(f"{head}connection: close\r\n\r\n".encode() + data)


def _end_with_the_engine() -> None:
    """Standard input ends when the engine's process does, however it ends."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def main(argv: list[str]) -> None:
    """Serve until idle."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--listener", type=int, required=True, help="the descriptor of the listening socket")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, default=0, help="tokens; 0: the model's own")
    parser.add_argument("--idle", type=float, required=True, help="seconds")
    arguments = parser.parse_args(argv)
    said = os.dup(1)
    os.dup2(2, 1)  # whatever the library prints goes to the engine's log
    threading.Thread(target=_end_with_the_engine, daemon=True).start()
    key = os.environ.pop(KEY_VARIABLE)
    reading = _Reading(arguments.model, arguments.threads, arguments.context)
    listener = socket.socket(fileno=arguments.listener)
    _Server(listener, key, arguments.alias, reading, lambda mark: os.write(said, mark)).serve(arguments.idle)
    os._exit(0)  # whatever threads the library has


if __name__ == "__main__":
    main(sys.argv[1:])
