"""The HTTP client for probes and warm-ups: bounded in time and size, follows no redirect, raises only BackendError.

Clients' requests go through backends/http/pool.py.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import httpx

from backends.errors import Broken, Disconnected, NotTaken, Refused, TimedOut, Unreachable
from backends.redaction import in_bytes

LIMIT_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole response."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Its body, decoded; None when that is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class ProbeClient:
    """Asks one engine. Every request has a connection of its own: they are rare, and engines close idle ones."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._context: ssl.SSLContext | None = None

    async def ask(
        self,
        url: str,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        timeout_s: float,
        body: object = None,
        dial: str | None = None,
    ) -> Reply:
        """GET `url`, or POST `body` as JSON where there is one; returns the response, whatever its status.

        BackendError when no whole response came within `timeout_s`. `dial`: as in Endpoint.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(url, headers, timeout_s, body, dial)
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise TimedOut(self._engine, f"it did not respond within {timeout_s:g} s") from exc
        except httpx.ConnectError as exc:
            kind = Refused if _is_refused(exc) else Unreachable
            raise kind(self._engine, f"no connection to it ({_cause(exc)})") from exc
        except httpx.HTTPError as exc:
            raise Disconnected(self._engine, f"it sent no valid response ({type(exc).__name__})") from exc
        except (httpx.InvalidURL, UnicodeError, ValueError) as exc:
            raise NotTaken(self._engine, f"its address or headers cannot be used ({type(exc).__name__})") from exc

    async def _ask(
        self, url: str, headers: Mapping[str, str], timeout_s: float, body: object, dial: str | None
    ) -> Reply:
        if self._context is None and url.startswith("https:"):
            self._context = await asyncio.to_thread(ssl.create_default_context)
        named = httpx.URL(url)
        sent = {"accept-encoding": "identity", **headers}
        where, tls = named, {}
        if dial is not None:
            sent["host"] = named.netloc.decode("ascii")
            where, tls = named.copy_with(host=dial), {"sni_hostname": named.raw_host.decode("ascii")}
        method = "GET" if body is None else "POST"
        # No proxy from the environment: the data path takes none either.
        async with (
            httpx.AsyncClient(verify=self._context or False, trust_env=False, timeout=timeout_s) as client,
            client.stream(method, where, headers=sent, json=body, extensions=tls) as response,
        ):
            pieces = bytearray()
            async for piece in response.aiter_raw():
                pieces += piece
                if len(pieces) > LIMIT_BYTES:
                    raise Broken(self._engine, f"its response is longer than {LIMIT_BYTES} bytes")
            body = bytes(pieces)
            # Texts of failures reach administrators, and clients as the reason why a model does not serve.
            return Reply(response.status_code, in_bytes(body, url, headers) if response.status_code >= 400 else body)


def _cause(exc: BaseException) -> str:
    """The system's own words for what caused it, as far as they are fit for a client (no address)."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, OSError) and cause.strerror and "connect call" not in cause.strerror.lower():
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return "refused or unreachable"


def _is_refused(exc: BaseException) -> bool:
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, ConnectionRefusedError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None
