"""Reads an engine's stream for a client that wants its answer in one piece."""

from __future__ import annotations

import msgspec

from app.dialects import sse
from app.dialects.assemble import Assembler
from app.dialects.mend import Terms
from app.dialects.openai import Reader
from app.table import Limits
from backends.errors import Broken, Disconnected, TimedOut
from backends.exchange import Answer


async def gather(exchange: Answer, terms: Terms, choices: int, limits: Limits) -> bytes:
    """Read a stream to its end and put it together; what an engine sends in one piece after all stays as it is.

    Thinking is not split: that is done to the whole.
    """
    engine = exchange.endpoint.engine
    if not exchange.headers.get("content-type", "").lower().startswith("text/event-stream"):
        return await exchange.read(limits.max_answer_bytes)
    limit = limits.max_event_bytes
    terms = msgspec.structs.replace(terms, reasoning="keep")
    reader = Reader(terms, hides_usage=False, max_event_bytes=limit, choices=choices)
    assembler = Assembler()
    size = 0

    def sink(data: bytes) -> bool:
        nonlocal size
        size += len(data)
        if size > limits.max_answer_bytes:
            raise Broken(engine, f"its answer has more than {limits.max_answer_bytes} bytes")
        for event in sse.split(reader.feed(data)):
            assembler.add(event)
        if reader.error is not None:
            raise reader.error
        return reader.is_done

    try:
        await exchange.pump(sink)
    except (Disconnected, TimedOut):
        if not reader.is_finished:
            raise
    for event in sse.split(reader.end()):
        assembler.add(event)
    exchange.linger()
    return assembler.answer()
