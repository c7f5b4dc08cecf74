"""What the data path has to know of an engine: where it is, in which state, and what its models can do. Values only."""

from __future__ import annotations

import enum
from typing import Literal, get_args

import msgspec


class State(enum.StrEnum):
    """Where an engine is in its life. Only READY serves; STARTING includes waiting for the next try after a failure."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    SLEEPING = "sleeping"
    STOPPING = "stopping"
    FAILED = "failed"


class UsageMode(enum.StrEnum):
    """How to get the token usage of a stream whose client did not ask for it (docs/wire.md)."""

    ASK = "ask"  # put stream_options.include_usage into the request, and take the extra event out of the response
    TIMINGS = "timings"  # the last event has llama.cpp's `timings`: nothing to ask for
    TRY = "try"  # as ASK, but never again once the engine has refused it with a 400 that names stream_options


class Dialect(enum.StrEnum):
    """The API that an engine has for the data path."""

    OPENAI = "openai"
    OLLAMA = "ollama"  # the daemon's own API; translated in backends/ollama


Capability = Literal["chat", "completion", "embedding", "tools", "vision", "reasoning", "json_schema", "logprobs"]
CAPABILITIES: tuple[str, ...] = get_args(Capability)
# What is known of a capability: the engine or the configuration declares it, a real request proved it, or it is
# missing.
DECLARED, VERIFIED, FAILED = "declared", "verified", "failed"


class ModelFacts(msgspec.Struct, frozen=True):
    """What is known of one model of an engine; None where nothing is.

    `context_length`: the tokens that prompt and response may have together, as the engine reports it. `capabilities`:
    by the names of CAPABILITIES, each DECLARED, VERIFIED or FAILED, and absent where nothing is known. `quantization`:
    how its weights are packed. `architecture`: the family of the model ("llama", "qwen3"). `token_bytes`: the most
    bytes that a token of its vocabulary stands for, None where a text may become shorter before it is split into
    tokens. `keeps_messages`: its template writes out every user's and assistant's message, each with a token of its
    own. `no_prompt_logprobs`: why it must not be asked how likely a prompt is, as the end of a sentence for clients.

    The others are a daemon's, which has many models. `num_ctx`: the one context length that requests ask for; another
    one would make the daemon load the model anew. `keep_alive_s`: for how many seconds the daemon keeps it after a
    request; negative: for ever, None: as the daemon is set. `abilities`: what it can do in the daemon's words
    ("completion", "tools", "thinking", …). `memory_bytes`: while it is loaded, as far as the daemon says. `expires_at`:
    until when it stays loaded, as the daemon writes it. `size_bytes`: on disk. `shift`: whether a response that fills
    the context goes on.
    """

    num_ctx: int | None = None
    keep_alive_s: float | None = None
    abilities: tuple[str, ...] | None = None
    is_loaded: bool = False
    memory_bytes: int = 0
    expires_at: str | None = None
    size_bytes: int = 0
    shift: bool = False
    context_length: int | None = None
    capabilities: dict[str, str] = {}
    quantization: str | None = None
    architecture: str | None = None
    token_bytes: int | None = None
    keeps_messages: bool = False
    no_prompt_logprobs: str = ""


class Timeouts(msgspec.Struct, frozen=True):
    """How long the data path waits for an engine, in seconds."""

    connect_s: float = 5.0
    first_byte_s: float = 600.0
    between_events_s: float = 120.0


class Endpoint(msgspec.Struct, frozen=True):
    """How to reach one start of one engine. Survives pickling and msgpack.

    `address` is a URL whose path stands for `/v1` (`http://127.0.0.1:4711/v1`, `https://host/api/v1`), or
    `unix:/path/to.sock` (paths are then taken from the root); where the `dialect` is Ollama's it is the daemon's root.
    `headers` are added to every request and hold the engine's key: never log them. `is_ours`: we run the process on
    this machine, so a connection that is reset before any byte of the response means that the request was not read
    (docs/decisions.md, "Retries"). `usage`: how to get the token usage of a stream.

    `gathers`: it notices that a client has gone only while it streams, so a response that is not to be streamed is
    asked for as a stream and put together (app/dialects/openai/collector.py). `once`: each request has a connection of
    its own, because the engine closes idle ones at any moment. `dial`: the IP address to connect to instead of looking
    the URL's host up, whose name stays in the `Host` header and in TLS. `likelihood`: the address of what tells how
    likely a prompt is (`echo`), where that is not the engine's server; like `address`, with the same key.
    """

    engine: str
    generation: int
    address: str
    headers: dict[str, str] = {}
    timeouts: Timeouts = Timeouts()
    is_ours: bool = False
    usage: UsageMode = UsageMode.TRY
    gathers: bool = False
    once: bool = False
    dial: str | None = None
    dialect: Dialect = Dialect.OPENAI
    likelihood: str = ""

    def __repr__(self) -> str:
        return f"<Endpoint {self.engine}#{self.generation} {self.address}>"
