"""The messages between the supervisor and its relays over `relay.sock`, and how they are framed.

A frame is a 4-byte big-endian length and one msgpack message. Order matters and is kept: a relay sends `InFlight`
before it sends `Applied` for a table. So once every relay has applied a table without an engine's endpoint, the counts
that have arrived are of all requests that still use that engine.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec

from app.table import Table

MAX_FRAME_BYTES = 64 * 1024 * 1024
# In place of a generation: the count is of requests that use one adapter of a backend.
ADAPTER = -1


def adapter_key(backend: str, adapter: str) -> str:
    """The name under which requests that use this adapter are counted, in place of the backend's."""
    return f"{backend}/{adapter}"


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """relay → supervisor, first: which process this is."""

    pid: int


class InFlight(msgspec.Struct, tag="in_flight", frozen=True):
    """relay → supervisor: how many leases it holds now, as (backend, generation, count); only what has changed.

    A request that waits for an engine to start counts under generation 0. One that uses an adapter counts once more,
    under `adapter_key` and ADAPTER. `returned` are the starts, as (backend, generation), of which a lease was given
    back since the last report: where one request follows another at once, no count ever falls.
    """

    counts: tuple[tuple[str, int, int], ...]
    returned: tuple[tuple[str, int], ...] = ()


class Applied(msgspec.Struct, tag="applied", frozen=True):
    """relay → supervisor: from now on this relay routes by that table."""

    version: int


class Claim(msgspec.Struct, frozen=True):
    """Who asks for a place at an engine. `key`: the name of the client's key, None where none is configured.
    `is_batch`: what is interactive comes first. `within_s`: after so long the client waits no longer; None: not known.
    """

    key: str | None = None
    is_batch: bool = False
    within_s: float | None = None


# Of the gateway itself.
NO_CLAIM = Claim()


class EngineWanted(msgspec.Struct, tag="wanted", frozen=True):
    """relay → supervisor: a request needs this backend. The reply comes when the backend serves and may have the
    request, or when it is known that it will not. `seq` is the relay's number for it."""

    seq: int
    backend: str
    claim: Claim = NO_CLAIM


class Unwanted(msgspec.Struct, tag="unwanted", frozen=True):
    """relay → supervisor: nobody waits for that `EngineWanted` any more; or, after the reply, its request is over."""

    seq: int


class Failing(msgspec.Struct, tag="failing", frozen=True):
    """relay → supervisor: a connection to this start of this backend was refused or reset: look at it now.
    `is_not_finite`: it answers, and what it answered are no numbers.
    """

    backend: str
    generation: int
    is_not_finite: bool = False


class Suspicion(msgspec.Struct, tag="suspicion", frozen=True):
    """relay → supervisor: this target does worse than its siblings, which serve and are well.

    `generation`: the start of the backend that it is about. `reason`: `failures` (in a row) or `share` (of its latest
    requests), which are so; `silent` or `slow`, which only seem so, since a request may take long. `evidence`: the
    figures, for people. `operation`: of its latest request. `siblings`: as (backend, its own name for the model).
    """

    backend: str
    model: str
    generation: int
    reason: str
    evidence: str
    operation: str
    siblings: tuple[tuple[str, str], ...]


class Amounts(msgspec.Struct, frozen=True):
    """So much of each thing that a key can be limited in. `budget`: tokens or money, as the key's budget counts."""

    requests: float = 0.0
    tokens: float = 0.0
    parallel: float = 0.0
    budget: float = 0.0


NOTHING = Amounts()


class AllowanceWanted(msgspec.Struct, tag="allowance_wanted", frozen=True):
    """relay → supervisor: this relay wants to spend more of a key's limits. `needs`: what the request that waits for
    the reply needs at least; nothing of all: it is asked for in advance, and nobody waits. `wants`: what all that wait
    need together. `seq`: the relay's number.
    """

    seq: int
    key: str  # its id
    needs: Amounts = NOTHING
    wants: Amounts = NOTHING


class Spent(msgspec.Struct, tag="spent", frozen=True):
    """relay → supervisor, a few times a second: what became of a key's allowance since the last time.

    `spent`: by requests that began; of `parallel`, how many more run now (negative: fewer). `returned`: of what was
    allowed under a slot (`Allowance.slot`), and is not going to be spent here; of `parallel` under any slot. `settled`:
    under the slot that a request took it from, how much more (negative: less) it was in the end than what was spent
    for it. A request that no engine took was nothing. The budget that was spent for a request is taken back whole when
    it ends, since from then on its usage record says what it cost.
    """

    key: str
    spent: Amounts = NOTHING
    returned: tuple[tuple[float, Amounts], ...] = ()
    settled: tuple[tuple[float, Amounts], ...] = ()


class LimitState(msgspec.Struct, frozen=True):
    """One limit as it is over all gateways, as far as is known. `reset_s`: until all of it is there again."""

    limit: float
    remaining: float
    reset_s: float


class Allowance(msgspec.Struct, tag="allowance", frozen=True):
    """supervisor → relay: what it may spend of a key's limits, besides what it may spend already, within `valid_s`
    (of `parallel`: until it is returned). Of what the key has no limit in, nothing is granted, and nothing is needed.

    `seq`: of the `AllowanceWanted` that it replies to; 0: it comes unasked, and what was refused may be asked for
    again. `slot`: under which the supervisor has noted what it grants; the relay only says it back. `requests` and
    `tokens`: what is left besides what relays may spend already. `refused`: of which the key has not as much as was
    needed, after how many seconds there will be, and what a client is told besides (`reason`, a sentence; nothing where
    all is as it should be).
    """

    seq: int
    key: str
    granted: Amounts = NOTHING
    valid_s: float = 2.0
    slot: float = 0.0
    requests: LimitState | None = None
    tokens: LimitState | None = None
    refused: Literal["requests", "tokens", "parallel", "budget"] | None = None
    reason: str = ""
    retry_after_s: float = 0.0


class Publish(msgspec.Struct, tag="publish", frozen=True):
    """supervisor → relay: the table from now on."""

    table: Table


class WantedReply(msgspec.Struct, tag="answer", frozen=True):
    """supervisor → relay: what became of an `EngineWanted`. When the engine is ready, the table says so already.

    `is_admitted`: the request counts against the engine's limit until `Unwanted`. `is_full`: the engine serves, and has
    no place for the request. `reason` and `retry_after_s` are for the client of a request that it does not get.
    """

    seq: int
    is_ready: bool
    is_admitted: bool = False
    is_full: bool = False
    reason: str | None = None
    retry_after_s: float = 5.0


class DrainRelay(msgspec.Struct, tag="drain", frozen=True):
    """supervisor → relay: take no new connections, finish what runs within this many seconds, then exit with 0."""

    seconds: float


class SealedComparison(msgspec.Struct, frozen=True):
    """relay → supervisor, as JSON on `control.sock`: what a blind comparison has hidden until a vote opens it.

    `key`: the name of the key that asked, None where no key is configured; a vote must come with the same. `models`: in
    the order of the answers; `answers`: the figures of each.
    """

    id: str
    key: str | None
    pair: str | None
    models: list[str]
    answers: list[dict[str, Any]]


FromRelay = Hello | InFlight | Applied | EngineWanted | Unwanted | Failing | Suspicion | AllowanceWanted | Spent
FromSupervisor = Publish | WantedReply | DrainRelay | Allowance

_encoder = msgspec.msgpack.Encoder()
from_relay: msgspec.msgpack.Decoder[FromRelay] = msgspec.msgpack.Decoder(FromRelay)
from_supervisor: msgspec.msgpack.Decoder[FromSupervisor] = msgspec.msgpack.Decoder(FromSupervisor)


def frame(message: FromRelay | FromSupervisor) -> bytes:
    """One message as it goes over the socket."""
    payload = _encoder.encode(message)
    return len(payload).to_bytes(4, "big") + payload


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """The next message, still encoded; asyncio.IncompleteReadError at the end of the connection, ValueError for a
    frame larger than MAX_FRAME_BYTES."""
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {size} bytes (at most {MAX_FRAME_BYTES})")
    return await reader.readexactly(size)
