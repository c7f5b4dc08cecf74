"""The gateway as a comparison asks it: chats as streams, so that the first token is timed, and short questions.

RunProblem                 the run stops: nobody answers, the key or a model's name is refused
a reply with an `error`    this one answer failed: it is written down as failed, and the others go on
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

import httpx
import msgspec

from app.comparison.running.run_record import RunProblem
from app.dialects import sse

CHAT: Final = "/v1/chat/completions"
_CONNECT_S: Final = 10.0
_TRIES: Final = 5  # where the connection fails before there is a response
_PAUSE_S: Final = 1.0
_BUSY_S: Final = 600.0  # so long one question waits in all while the gateway says that it is too busy
_LONGEST_PAUSE_S: Final = 30.0
_STOPPING: Final = frozenset({401, 403, 404})  # it would be the same for every question
_BUSY: Final = frozenset({429, 503})
_TIMED_OUT: Final = 504
_LARGEST_EVENT: Final = 64 << 20
_Reply = TypeVar("_Reply")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """One answer, or why there is none (`error`). `first_token_s`, `seconds`: from the request to the first text and to
    the end. `model` and `serving`: whose it is, by the gateway's account.
    """

    text: str = ""
    reasoning: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_token_s: float | None = None
    seconds: float | None = None
    serving: str | None = None
    model: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ShortReply:
    """The response to a short question: its status, and its JSON, None where it is none."""

    status: int
    value: Any

    @property
    def refusal(self) -> str:
        """What the gateway says is wrong, of a status that is not 2xx."""
        return refusal_of(self.status, self.value)


class SilenceLimits(NamedTuple):
    """After so many seconds without anything the user is told, and the request ends: before the first event (an engine
    may have to be started, and to read a long prompt: the gateway's own limits for both are 600 s where nobody changed
    them), and between two of them (there it is 120 s).
    """

    told_s: float = 60.0
    first_s: float = 1260.0
    between_s: float = 600.0


class GatewayClient:
    """Asks one gateway, with at most so many `connections`. `waiting` is told why, each time that something is to be
    asked again later or nothing comes for long; what is silent for longer is an error. Used as an async context
    manager.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        connections: int,
        *,
        waiting: Callable[[str], None] = lambda why: None,
        clock: Callable[[], float] = time.perf_counter,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        patience: SilenceLimits = SilenceLimits(),  # noqa: B008 - it cannot be changed
    ) -> None:
        self.url = url.rstrip("/")
        self._waiting = waiting
        self._clock = clock
        self._pause = pause
        self._patience = patience
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(_CONNECT_S, read=None, pool=None),  # `patience` ends what is silent
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def chat(self, body: Mapping[str, Any]) -> ChatReply:
        """The answer to a chat. RunProblem where the others would fare no better."""
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        who = str(body["model"])
        try:
            return await self._patiently(lambda silence: self._chat(asked, silence), who)
        except _Silent as exc:
            return ChatReply(error=str(exc))

    async def ask(self, path: str, body: Mapping[str, Any]) -> ShortReply:
        """The response to a short question, whatever its status. RunProblem where nobody answers."""

        async def once(silence: _Silence) -> ShortReply | _Busy:
            response = await self._http.post(path, json=body)
            value = _json(response.content)
            if response.status_code in _BUSY:
                return _Busy(_retry_after(response), refusal_of(response.status_code, value), response.status_code)
            return ShortReply(response.status_code, value)

        return await self._shortly(once, body)

    async def first_event(self, path: str, body: Mapping[str, Any]) -> ShortReply:
        """The first event of a stream, whose rest is not wanted, or a refusal. RunProblem where nobody answers."""

        async def once(silence: _Silence) -> ShortReply | _Busy:
            async with self._http.stream("POST", path, json=body) as response:
                if response.status_code != 200:
                    return ShortReply(response.status_code, _json(await response.aread()))
                framer = sse.Framer(_LARGEST_EVENT)
                async for piece in response.aiter_bytes():
                    for event in sse.split(framer.feed(piece)):
                        if data := sse.data(event):
                            return ShortReply(200, _json(data))
            return ShortReply(200, None)

        return await self._shortly(once, body)

    async def _shortly(
        self, once: Callable[[_Silence], Awaitable[ShortReply | _Busy]], body: Mapping[str, Any]
    ) -> ShortReply:
        who = str(body.get("model") or ", ".join(body.get("models") or ()))
        try:
            return await self._patiently(once, who)
        except _Silent as exc:
            return ShortReply(_TIMED_OUT, {"error": {"message": str(exc)}})

    async def _patiently(self, once: Callable[[_Silence], Awaitable[_Reply | _Busy]], who: str) -> _Reply:
        """Ask again while the gateway is too busy, or the connection fails before there is a response. _Silent where
        nothing comes.
        """
        failures, waited = 0, 0.0
        while True:
            try:
                async with _Silence(who, self._patience, self._waiting) as silence:
                    reply = await once(silence)
            except TimeoutError as exc:
                raise _Silent(f"nothing came from {who} for too long, so it was not waited for any longer") from exc
            except httpx.TransportError as exc:
                failures += 1
                if failures == _TRIES:
                    raise RunProblem(
                        f"The gateway at {self.url} does not answer ({exc or type(exc).__name__}): once it runs again, "
                        "the same command goes on where it was."
                    ) from exc
                self._waiting(f"The gateway at {self.url} does not answer ({exc or type(exc).__name__}).")
                await self._pause(_PAUSE_S)
                continue
            if not isinstance(reply, _Busy):
                return reply
            if waited >= _BUSY_S:
                raise RunProblem(
                    f"The gateway has been too busy for {waited:.0f} s: {reply.why} The same command goes on where it "
                    "was."
                )
            pause = min(max(reply.retry_after_s, _PAUSE_S), _LONGEST_PAUSE_S)
            waited += pause
            self._waiting(reply.why)
            await self._pause(pause)

    async def _chat(self, body: Mapping[str, Any], silence: _Silence) -> ChatReply | _Busy:
        began = self._clock()
        async with self._http.stream("POST", CHAT, json=body) as response:
            status = response.status_code
            if status != 200:
                value = _json(await response.aread())
                why = refusal_of(status, value)
                if status in _BUSY and response.headers.get("x-should-retry") != "false":
                    return _Busy(_retry_after(response), why, status)
                if status in _STOPPING:
                    raise RunProblem(f"The gateway refuses to ask {body['model']!r}: {why}")
                return ChatReply(error=why, seconds=self._clock() - began)
            reading = _Reading(began, self._clock)
            try:
                async for piece in response.aiter_bytes():
                    if reading.feed(piece):  # the gateway's comments that hold a connection open are no sign of life
                        silence.heard()
            except (httpx.TransportError, ValueError) as exc:
                reading.error = reading.error or f"the answer broke off ({exc or type(exc).__name__})"
            return reading.reply(response.headers)


class _Silence:
    """Watches one request to `who`: `waiting` is told once per pause. Used as an async context manager, which ends by
    TimeoutError where nothing came for too long.
    """

    def __init__(self, who: str, patience: SilenceLimits, waiting: Callable[[str], None]) -> None:
        self._who = who
        self._patience = patience
        self._waiting = waiting
        self._limit = asyncio.timeout(patience.first_s)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        self._set_timer()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._limit.__aexit__(kind, error, trace)

    def heard(self) -> None:
        """Something came."""
        if not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + self._patience.between_s)
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        said = f"nothing has come for {self._patience.told_s:g} s from {self._who}"
        self._timer = asyncio.get_running_loop().call_later(self._patience.told_s, self._waiting, said)


class _Silent(Exception):
    """Nothing came for too long; the message says from whom."""


@dataclass(frozen=True, slots=True)
class _Busy:
    """The gateway cannot take the request now."""

    retry_after_s: float
    why: str
    status: int


class _Reading:
    """One stream, as it is read."""

    def __init__(self, began: float, clock: Callable[[], float]) -> None:
        self._began, self._clock = began, clock
        self._framer = sse.Framer(_LARGEST_EVENT)
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._first: float | None = None
        self._finish: str | None = None
        self._usage: Mapping[str, Any] = {}
        self._is_whole = False
        self.error: str | None = None

    def feed(self, piece: bytes) -> bool:
        """Take what came; whether there was an event in it. ValueError for what is no stream of events."""
        was_event = False
        for event in sse.split(self._framer.feed(piece)):
            data = sse.data(event)
            if data == b"[DONE]":
                self._is_whole = True
            elif data:
                was_event = True
                self._take(msgspec.json.decode(data))
        return was_event

    def _take(self, chunk: Any) -> None:
        if "error" in chunk:
            self.error = refusal_of(0, chunk)
            return
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            text = delta.get("content") or delta.get("refusal")
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            if (text or thought) and self._first is None:
                self._first = self._clock() - self._began
            self._text.append(text or "")
            self._reasoning.append(thought or "")
            self._finish = choice.get("finish_reason") or self._finish

    def reply(self, headers: httpx.Headers) -> ChatReply:
        """The answer; one that is not whole is none."""
        error = self.error or (None if self._is_whole else "the answer broke off")
        return ChatReply(
            text="".join(self._text),
            reasoning="".join(self._reasoning) or None,
            finish_reason=self._finish,
            prompt_tokens=self._usage.get("prompt_tokens"),
            completion_tokens=self._usage.get("completion_tokens"),
            first_token_s=self._first,
            seconds=self._clock() - self._began,
            serving=headers.get("x-modelport-serving"),
            model=headers.get("x-modelport-model"),
            error=error,
        )


def refusal_of(status: int, value: Any) -> str:
    """What the gateway says is wrong. Pure."""
    try:
        return str(value["error"]["message"])
    except (KeyError, TypeError):
        return f"The gateway answered {status}."


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _retry_after(response: httpx.Response) -> float:
    try:
        return float(response.headers.get("retry-after", ""))
    except ValueError:
        return 0.0
