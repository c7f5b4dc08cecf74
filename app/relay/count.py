"""How many tokens a conversation takes, asked of the engine that would have it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from backends.base import Endpoint
from backends.errors import BackendError, Broken, Rejected
from backends.exchange import Exchange
from backends.upstream import Call, Upstream

MAX_ANSWER_BYTES = 64 * 1024 * 1024
T = TypeVar("T")
_RELEVANT = ("messages", "tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")


class _Count(msgspec.Struct, frozen=True):
    count: int


class _Prompt(msgspec.Struct, frozen=True):
    prompt: str


class _Tokens(msgspec.Struct, frozen=True):
    tokens: list[msgspec.Raw]


class Counter:
    """Asks one engine. Its routes for this lie beside `/v1`."""

    def __init__(
        self,
        upstream: Upstream,
        endpoint: Endpoint,
        headers: list[tuple[str, str]],
        refused: Callable[[Exchange], Awaitable[BackendError]],
    ) -> None:
        self._upstream = upstream
        self._refused = refused
        self._endpoint = msgspec.structs.replace(endpoint, address=endpoint.address.removesuffix("/v1"))
        self._headers = headers

    async def count(self, kind: str, body: bytes) -> int:
        """The tokens of a chat's body; BackendError, with status 501 for a kind of engine that cannot tell."""
        if b'"image_url"' in body or kind not in ("vllm", "llama_cpp"):
            what = "the tokens of pictures" if kind in ("vllm", "llama_cpp") else "tokens"
            message = f"The engine behind this name cannot count {what}."
            raise Rejected(
                self._endpoint.engine,
                message,
                status=501,
                type_="invalid_request_error",
                code="not_supported",
            )
        fields: dict[str, Any] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        chat = {name: fields[name] for name in _RELEVANT if name in fields}
        if kind == "vllm":
            return (await self._ask("/tokenize", {"model": fields["model"], **chat}, _Count)).count
        rendered = await self._ask("/apply-template", chat, _Prompt)
        parts = {"content": rendered.prompt, "add_special": True, "parse_special": True}
        return len((await self._ask("/tokenize", parts, _Tokens)).tokens)

    async def _ask(self, path: str, body: dict[str, Any], type_: type[T]) -> T:
        call = Call("POST", path, msgspec.json.encode(body), self._headers)
        exchange = await self._upstream.open(self._endpoint, call)
        try:
            if exchange.status >= 300:
                raise await self._refused(exchange)
            answer = await exchange.read(MAX_ANSWER_BYTES)
        finally:
            exchange.close()
        try:
            return msgspec.json.decode(answer, type=type_)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise Broken(self._endpoint.engine, "it sent what is not a count of tokens") from exc
