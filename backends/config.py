"""What an operator writes under `backends:`; one class per kind. Checked before the first port opens."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from backends.base import Timeouts

Seconds = Annotated[float, Field(gt=0, le=86_400)]

# Those that say how a request is sent: they are the gateway's own to set, and another one would break the connection.
_OURS: Final = frozenset(
    {
        *("accept-encoding", "content-length", "content-type", "host"),
        *("connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)


# In these sentences `{value}` stands for the value, which is not always shown (app/complaints.py).


def _dialled(url: str) -> str:
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
        (host or "").encode("idna")
    except UnicodeError as exc:
        raise ValueError("{value} has no host name that can be looked up") from exc
    except ValueError as exc:
        raise ValueError("{value} has a port (1 to 65535) or an address in brackets that cannot be") from exc
    if not host:
        raise ValueError("{value} names no host")
    if port == 0:
        raise ValueError("{value} names port 0, where nobody listens")
    if not parts.path.isascii():
        raise ValueError("{value} has a path with characters that must be written as %XX")
    return url


def _credential(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not text:
        raise ValueError("is empty: give a key, or leave it out")
    if not (text.isascii() and text.isprintable()) or text != text.strip():
        raise ValueError("{value} holds a line break, a blank at an end or another character that no header can carry")
    return key


def _sendable(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError(f"{name!r} is not a header's name: letters, digits and -, without blanks")
        if name.lower() in _OURS:
            raise ValueError(f"'{name}' is set by the gateway itself")
        text = value.get_secret_value()
        if not re.fullmatch(r"[\t -~\xa1-\xff]*", text) or text != text.strip():
            raise ValueError(
                f"the value of '{name}' holds a line break, a blank at an end or another character that no header can "
                "carry (it is not shown)"
            )
    return headers


Url = Annotated[str, Field(pattern=r"^https?://[^\s?#@]+$"), AfterValidator(_dialled)]
Credential = Annotated[SecretStr, AfterValidator(_credential)]
Headers = Annotated[dict[str, SecretStr], AfterValidator(_sendable)]


class TimeoutsConfig(BaseModel):
    """How long a request waits for this engine, in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connect_s: Seconds = Field(5.0, description="For a connection to the engine.")
    first_byte_s: Seconds = Field(
        600.0, description="For the first byte of its answer; then 504 and the work is cancelled."
    )
    between_events_s: Seconds = Field(
        120.0, description="Between two pieces of an answer; then the stream ends with an error."
    )

    def values(self) -> Timeouts:
        """The same, as the data path carries it."""
        return Timeouts(self.connect_s, self.first_byte_s, self.between_events_s)


class BackendConfig(BaseModel):
    """What every kind has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeouts: TimeoutsConfig = Field(
        default_factory=TimeoutsConfig, description="How long a request waits for this engine."
    )


class ManagedConfig(BackendConfig):
    """What every kind has whose process we run."""

    start: Literal["boot", "demand"] = Field(
        "boot", description="`boot`: with the gateway; `demand`: when the first request asks for it."
    )
    start_timeout_s: Seconds = Field(
        600.0, description="A start that is not ready by then is ended and counts as failed."
    )
    stop_grace_s: Seconds = Field(10.0, description="Between TERM and KILL when the engine is stopped.")
    env: dict[str, str] = Field(default_factory=dict, description="More environment variables for the engine.")


class LlamaCppConfig(ManagedConfig):
    """The embedded engine: llama.cpp's server in a child process, one GGUF file."""

    kind: Literal["llama_cpp"]
    model: str = Field(
        description="A GGUF file, or `package:NAME` for the GGUF file inside an installed Python package.", min_length=1
    )
    task: Literal["generate", "embed"] = Field("generate", description="What the model does: text or embeddings.")
    context_length: int | None = Field(None, ge=16, description="Tokens of context per slot; default: the model's own.")
    slots: int = Field(4, ge=1, le=256, description="Requests that run at the same time; more wait in the engine.")
    threads: int | None = Field(None, ge=1, le=1024, description="Threads that compute; default: the cores we may use.")
    gpu_layers: int = Field(0, ge=-1, description="Layers on a GPU where the build has one; -1: all.")


class RemoteConfig(BackendConfig):
    """An OpenAI-compatible endpoint that somebody else runs."""

    kind: Literal["remote"]
    url: Url = Field(description="Its base URL, as an SDK takes it: usually ends in `/v1`.")
    api_key: Credential | None = Field(
        None, description="Sent as `Authorization: Bearer`; use ${NAME} to take it from the environment."
    )
    headers: Headers = Field(default_factory=dict, description="More headers to send.")


class OllamaConfig(BackendConfig):
    """An Ollama daemon that somebody else runs."""

    kind: Literal["ollama"]
    url: Url = Field("http://127.0.0.1:11434", description="Where the daemon listens, without `/v1`.")
