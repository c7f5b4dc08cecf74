"""What registering asks of an Ollama daemon: its models, blobs, `/api/create`, `/api/delete`.

The daemon answers a failing creation with status 200 and an `error` in the stream; only `success` at its end is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from app.registration.journal import RegistrationError
from backends.ollama.names import full_name

OWN_JINJA: Final = (0, 33)  # from this version on the daemon renders a GGUF file's own template
_ASK_S: Final = 10.0
_CREATE_S: Final = 900.0  # between two lines: it verifies the weights, and quantises where it imports them
_BLOCK: Final = 1 << 20


class OllamaDaemon:
    """One daemon. Every method raises RegistrationError with one sentence; all of them block."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        timeout = httpx.Timeout(_ASK_S, read=_CREATE_S, write=_CREATE_S)
        self._client = httpx.Client(base_url=self.url, timeout=timeout, trust_env=False)

    def __repr__(self) -> str:
        return f"<OllamaDaemon {self.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def version(self) -> str:
        """Its version, such as `0.33.0`."""
        reply = self._ask("GET", "/api/version", timeout=_ASK_S)
        version = _json(reply).get("version")
        if not isinstance(version, str):
            raise RegistrationError(f"what answers at {self.url} is not an Ollama daemon: it names no version")
        return version

    def digest(self, model: str) -> str | None:
        """The digest of the model's manifest; None where the daemon has no model of this name, in any spelling."""
        listed = _json(self._ask("GET", "/api/tags", timeout=_ASK_S)).get("models")
        for each in listed if isinstance(listed, list) else ():
            if isinstance(each, dict) and full_name(str(each.get("name"))) == full_name(model):
                return str(each.get("digest"))
        return None

    def weights(self, model: str) -> str | None:
        """The digest of the model's weights, as 64 hex digits; None where the daemon does not say it."""
        shown = _json(self._ask("POST", "/api/show", timeout=_ASK_S, json={"model": model}))
        match = re.search(r"(?m)^FROM .*sha256[-:]([0-9a-f]{64})\s*$", str(shown.get("modelfile")))
        return match[1] if match is not None else None

    def push(self, file: Path, digest: str, tell: Callable[[int, int], None]) -> bool:
        """Give it the file, whose SHA-256 is `digest` in hex, unless it has it; returns whether it was sent.
        `tell(done, total)`: bytes.
        """
        path = f"/api/blobs/sha256:{digest}"
        if self._ask("HEAD", path, expected=(200, 404), timeout=_ASK_S).status_code == 200:
            return False
        try:
            total = file.stat().st_size
            with file.open("rb") as opened:
                content = _blocks(opened.read, total, tell)
                self._ask("POST", path, expected=(200, 201), content=content, headers={"content-length": str(total)})
        except OSError as exc:
            raise RegistrationError(f"{file} cannot be read: {exc.strerror}") from exc
        return True

    def create(self, order: Mapping[str, Any], tell: Callable[[str], None]) -> None:
        """Create a model; the order is the body of `/api/create`. `tell` gets the daemon's own words as they come."""
        last = ""
        with self._errors_told(), self._client.stream("POST", "/api/create", json=dict(order)) as reply:
            if reply.status_code != 200:
                reply.read()
                raise self._refusal(reply)
            for text in reply.iter_lines():
                line = _decoded(text)
                if "error" in line:
                    raise RegistrationError(
                        f"the daemon at {self.url} cannot create '{order['model']}': {line['error']}"
                    )
                last = str(line.get("status") or last)
                tell(last)
        if last != "success":
            raise RegistrationError(
                f"the daemon at {self.url} ended while it created '{order['model']}', without reporting success"
            )

    def delete(self, model: str) -> bool:
        """Delete a model; returns whether it was there."""
        return self._ask("DELETE", "/api/delete", expected=(200, 404), json={"model": model}).status_code == 200

    def _ask(self, method: str, path: str, expected: tuple[int, ...] = (200,), **more: Any) -> httpx.Response:
        with self._errors_told():
            reply = self._client.request(method, path, **more)
        if reply.status_code not in expected:
            raise self._refusal(reply)
        return reply

    def _refusal(self, reply: httpx.Response) -> RegistrationError:
        said = _json(reply).get("error") or f"it answered {reply.status_code}"
        return RegistrationError(f"the daemon at {self.url} refuses {reply.request.url.path}: {said}")

    def _errors_told(self) -> _Told:
        return _Told(self.url)


class _Told:
    """An error of the connection becomes a sentence."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            raise RegistrationError(
                f"no Ollama daemon answers at {self._url}: start it with `ollama serve`, or name its address with "
                "--ollama-url"
            ) from error
        if isinstance(error, httpx.HTTPError | httpx.InvalidURL):
            why = "answers too slowly" if isinstance(error, httpx.TimeoutException) else "ended the connection"
            raise RegistrationError(f"the daemon at {self._url} {why}: look at its log") from error


def _blocks(read: Callable[[int], bytes], total: int, tell: Callable[[int, int], None]) -> Iterator[bytes]:
    done = 0
    while block := read(_BLOCK):
        yield block
        done += len(block)
        tell(done, total)


def _json(reply: httpx.Response) -> dict[str, Any]:
    return _decoded(reply.text)


def _decoded(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def numbers(version: str) -> tuple[int, ...]:
    """The numbers in front of a version: (0, 33, 0) for `0.33.0-rc2`; empty where there are none."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match is not None else ()


def renders_jinja(version: str) -> bool:
    """Whether a daemon of this version renders the template in a GGUF file itself."""
    return numbers(version) >= OWN_JINJA
