"""Reads an engine's stream for a client that wants its response in one piece."""

from __future__ import annotations

import asyncio

import msgspec

from app.dialects import sse
from app.dialects.openai import embeddings
from app.dialects.openai.collector import Collector
from app.dialects.openai.normalize import ResponseContext
from app.dialects.openai.stream_reader import StreamReader
from app.dialects.parameters import adjust
from app.relay.planning.plan import RequestPlan
from app.table import Backend, Limits
from backends.errors import Broken, Disconnected
from backends.http.exchange import EngineResponse, Exchange

# A response up to this size is put together without letting other work in between.
INLINE_BYTES = 256 * 1024


async def gather(exchange: EngineResponse, context: ResponseContext, choices: int, limits: Limits) -> bytes:
    """Read a stream to its end and put it together; what an engine sends in one piece after all stays as it is.

    Thinking is not split: that is done to the whole.
    """
    engine = exchange.endpoint.engine
    if not isinstance(exchange, Exchange) or not exchange.is_stream:
        return await exchange.read(limits.max_answer_bytes)
    limit = limits.max_event_bytes
    context = msgspec.structs.replace(context, reasoning="keep")
    reader = StreamReader(context, hides_usage=False, max_event_bytes=limit, choices=choices)
    collector = Collector()
    size = 0

    def sink(data: bytes) -> bool:
        nonlocal size
        size += len(data)
        if size > limits.max_answer_bytes:
            raise Broken(engine, f"its answer has more than {limits.max_answer_bytes} bytes")
        _add(collector, reader.feed(data), engine)
        if reader.error is not None:
            raise reader.error
        return reader.is_done

    await exchange.pump(sink)
    if not reader.is_done:
        # The usage is behind the last choice: without the end mark nobody knows that all of it came.
        raise Disconnected(engine, "its stream ended before the answer was finished")
    exchange.linger()
    # Log probabilities make megabytes of it.
    return await asyncio.to_thread(collector.response) if size > INLINE_BYTES else collector.response()


async def fitted(plan: RequestPlan, backend: Backend, body: bytes) -> bytes:
    """Embeddings in the format and with the dimensions that were asked for."""
    wanted = adjust.vectors(plan.parameters, backend.profile)
    if len(body) > INLINE_BYTES:
        return await asyncio.to_thread(embeddings.fitted, backend.name, body, wanted)
    return embeddings.fitted(backend.name, body, wanted)


def _add(collector: Collector, events: bytes, engine: str) -> None:
    """Add the events; Broken for what only looks like a chunk: those that a template knew were not decoded before."""
    try:
        for event in sse.split(events):
            collector.add(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, AttributeError, TypeError) as exc:
        raise Broken(engine, "it sent an event that is not a chunk of an answer") from exc
