"""Short questions to an engine: bounded in time and size, never redirected, failures in words.

For probes and warm-ups. Clients' requests go through backends/http/pool.py.
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
    """A whole answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Its body; None when that is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class ProbeClient:
    """Asks one engine. Every call is its own connection: questions are seldom, and engines close idle ones."""

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
        """GET, or POST when there is a body. BackendError when no whole answer came. `dial`: as of an Endpoint."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(url, headers, timeout_s, body, dial)
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise TimedOut(self._engine, f"it did not answer within {timeout_s:g} s") from exc
        except httpx.ConnectError as exc:
            kind = Refused if _is_refused(exc) else Unreachable
            raise kind(self._engine, f"no connection to it ({_cause(exc)})") from exc
        except httpx.HTTPError as exc:
            raise Disconnected(self._engine, f"it broke the connection off ({type(exc).__name__})") from exc
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
        # No proxy from the environment: the data path takes none either.
        async with (
            httpx.AsyncClient(verify=self._context or False, trust_env=False, timeout=timeout_s) as client,
            client.stream("GET" if body is None else "POST", where, headers=sent, json=body, extensions=tls) as answer,
        ):
            pieces = bytearray()
            async for piece in answer.aiter_raw():
                pieces += piece
                if len(pieces) > LIMIT_BYTES:
                    raise Broken(self._engine, f"its answer is longer than {LIMIT_BYTES} bytes")
            body = bytes(pieces)
            # Words of failures reach administrators, and clients as the reason why a model is not there.
            return Reply(answer.status_code, in_bytes(body, url, headers) if answer.status_code >= 400 else body)


def _cause(exc: BaseException) -> str:
    """The system's own words at the root of it, as far as they are fit for a client (no address)."""
    below: BaseException | None = exc
    while below is not None:
        if isinstance(below, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {below.verify_message}"
        if isinstance(below, ConnectionRefusedError):
            return "connection refused"
        if isinstance(below, OSError) and below.strerror and "connect call" not in below.strerror.lower():
            return below.strerror.lower()
        below = below.__cause__ or below.__context__
    return "refused or unreachable"


def _is_refused(exc: BaseException) -> bool:
    below: BaseException | None = exc
    while below is not None and not isinstance(below, ConnectionRefusedError):
        below = below.__cause__ or below.__context__
    return below is not None
