"""A response that is on its way from an Ollama daemon: as deltas where it is a stream, else as OpenAI's."""

from __future__ import annotations

from collections.abc import Callable

from backends.endpoint import Endpoint
from backends.http.delta import Delta
from backends.http.exchange import Exchange, ResponseTimings
from backends.ollama.response import ResponseHead, whole
from backends.ollama.stream import OllamaStreamReader


class OllamaExchange:
    """Wraps an exchange whose status is good. It owns nothing: close the exchange within, as always."""

    def __init__(self, inner: Exchange, head: ResponseHead, max_line_bytes: int) -> None:
        self._inner = inner
        self._head = head
        self._stream = OllamaStreamReader(head, max_line_bytes) if head.asked.is_stream else None
        self._timings = ResponseTimings()
        self.notes: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<OllamaExchange {self._inner!r}>"

    @property
    def endpoint(self) -> Endpoint:
        return self._inner.endpoint

    @property
    def headers(self) -> dict[str, str]:
        return self._inner.headers

    @property
    def is_stream(self) -> bool:
        """Whether the daemon streams, as it was asked to."""
        kind = self._inner.headers.get("content-type", "").partition(";")[0].strip().lower()
        return self._stream is not None and kind == "application/x-ndjson"

    @property
    def timings(self) -> ResponseTimings:
        return self._stream.timings if self._stream is not None else self._timings

    async def read(self, limit_bytes: int) -> bytes:
        """A whole response in OpenAI's format."""
        body = await self._inner.read(limit_bytes)
        answer, self._timings = whole(self._head, body)
        self.notes = self._timings.headers()
        return answer

    async def pump(self, sink: Callable[[list[Delta]], bool]) -> None:
        """As `Exchange.pump`, with deltas instead of bytes."""
        stream = self._stream
        assert stream is not None

        has_enough = False

        def take(data: bytes) -> bool:
            nonlocal has_enough
            deltas = stream.feed(data)
            has_enough = bool(deltas) and sink(deltas)
            if stream.error is not None and not has_enough:
                raise stream.error
            return has_enough or stream.is_done

        await self._inner.pump(take)
        rest = [] if has_enough else stream.end()
        if rest:
            sink(rest)

    def pause(self) -> None:
        """As `Exchange.pause`."""
        self._inner.pause()

    def resume(self) -> None:
        """As `Exchange.resume`."""
        self._inner.resume()

    def linger(self) -> None:
        """As `Exchange.linger`."""
        self._inner.linger()
