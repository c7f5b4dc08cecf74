"""The table: everything that a relay must know to route a request. Immutable, published whole by the supervisor."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from app.dialects.reasoning import Reasoning
from backends.endpoint import Endpoint, ModelFacts, State
from backends.engine_profile import EngineProfile
from backends.errors import GivenUp, NotReady, NotTaken
from backends.kinds import PROFILES
from backends.ollama.names import full_name


class Target(msgspec.Struct, frozen=True):
    """One backend that serves a public name. `model` is the engine's own name for it; `weight`: its share of the
    requests, relative to the other targets.
    """

    backend: str
    model: str
    weight: int = 1


# What clients may tell a chat template by default: whether and how much the model is to think.
TEMPLATE_KWARGS = (
    *("enable_thinking", "thinking", "thinking_budget", "thinking_mode", "reasoning_effort"),
    *("preserve_thinking", "clear_thinking"),
)


class Rules(msgspec.Struct, frozen=True):
    """What is done to the parameters of a public name's requests (app/dialects/parameters/adjust.py).

    `normalize` is `strict` or `lenient`; None: lenient for engines on this machine. `defaults` and `overrides` are
    sampling parameters under their names in the configuration. `template_kwargs`: the members of
    `chat_template_kwargs` that clients may set. `media_domains`: hosts that engines may fetch pictures and sounds from.
    """

    normalize: str | None = None
    defaults: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    template_kwargs: tuple[str, ...] = TEMPLATE_KWARGS
    media_domains: tuple[str, ...] = ()


# By what one of a model's targets is chosen for a request (app/relay/balancing/affinity.py).
RouteBy = Literal["least_busy", "prefix", "session"]


class Price(msgspec.Struct, frozen=True):
    """What a million tokens of a public model cost, in whatever money the file counts. `cached`: of the prompt's
    tokens those that the engine had kept; None: as `input`.
    """

    input: float = 0.0
    output: float = 0.0
    cached: float | None = None

    def of(self, input_tokens: float, output_tokens: float, cached_tokens: float = 0) -> float:
        """What so many tokens cost; `cached_tokens` are among `input_tokens`."""
        if not cached_tokens:
            return (input_tokens * self.input + output_tokens * self.output) / 1e6
        cached = self.input if self.cached is None else self.cached
        fresh = max(0.0, input_tokens - cached_tokens)
        return (fresh * self.input + cached_tokens * cached + output_tokens * self.output) / 1e6


class PublicModel(msgspec.Struct, frozen=True):
    """A public name. `fallbacks` are public names, tried in order when no target takes the request; one that the
    client's key may not use is skipped, unless it is among `fallbacks_for_all`.

    `parent`: of an adapter, the name of the model that it belongs to. `reasoning`: what is done with tags of thinking
    in its texts. `parity`: what its certificate says of what it was trained on, None where it has none.
    `route`: by what one of several targets is chosen.
    `continues_streams`: a stream that breaks in the middle goes on at another engine with the same serving digest.
    `price`: None where it costs nothing.
    """

    name: str
    targets: tuple[Target, ...]
    fallbacks: tuple[str, ...] = ()
    parent: str | None = None
    reasoning: Reasoning = "keep"
    rules: Rules = Rules()
    fallbacks_for_all: tuple[str, ...] = ()
    parity: str | None = None
    route: RouteBy = "least_busy"
    continues_streams: bool = False
    price: Price | None = None


class Wildcard(msgspec.Struct, frozen=True):
    """The public names `prefix*`: what follows the prefix is the engine's own name for the model."""

    prefix: str
    backend: str
    reasoning: Reasoning = "keep"
    rules: Rules = Rules()
    price: Price | None = None


class Serving(msgspec.Struct, frozen=True):
    """What the answers of one model of one start of an engine are made from.

    `digest`: 16 hex digits; two servings with the same digest have the same weights, settings, template and adapter,
    byte for byte, and the same version of the same kind of engine. None: a file has changed since the engine's start,
    so nobody knows what it has in memory. The parts are hex digests of the files' contents: of one file its SHA-256,
    of several that of their list; None where there is none, or where it lies inside another file.
    """

    digest: str | None
    weights: str | None = None
    template: str | None = None
    adapter: str | None = None


class Backend(msgspec.Struct, frozen=True):
    """One row: one engine's situation as the relays see it.

    Whether it serves: `endpoint` is None while it does not. `can_start`: asking the supervisor for it (`EngineWanted`)
    may make it serve. `reason`: why it does not. `retry_after_s`: when a client is told to try again. `wait_s`: how
    long a request may wait for it, where it has a limit of its own. `waits_for`: what it waits for before it can start.
    `is_given_up`: it will not serve by itself, or not before `tries_at` (Unix seconds); `reason` says what helps.
    `is_wedged`: requests that it has been sent will get no response either. `is_limited`: it takes only so many
    requests at a time, so each has to be admitted by the supervisor although it serves.

    Its models: `models` are the names that the engine itself lists, None while unknown; `is_strict`: any other name
    does not exist there. `facts`: the engine's own name for a model → what is known of it; "" stands for every other
    name. `adapters`: the name of each adapter that it is to have → why it does not have it, None where it has it.
    `adapters_due`: when those that it does not have are tried again (Unix seconds). `media_domains`: hosts that it may
    fetch pictures and sounds from. `version`: the engine's own, None where it does not say. `servings`: the engine's
    own name for a model → what its answers are made from; "" stands for every other name. Absent until the files have
    been read (app/supervisor/provenance), and for engines of somebody else. `ejected`: the engine's own name for a
    model → why requests for it pass this backend over while another one serves it.
    """

    name: str
    kind: str
    state: State
    reason: str | None = None
    endpoint: Endpoint | None = None
    can_start: bool = False
    models: tuple[str, ...] | None = None
    is_strict: bool = False
    retry_after_s: float = 5.0
    adapters: dict[str, str | None] = {}
    is_limited: bool = False
    wait_s: float | None = None
    facts: dict[str, ModelFacts] = {}
    media_domains: tuple[str, ...] = ()
    version: str | None = None
    is_wedged: bool = False
    is_given_up: bool = False
    tries_at: float | None = None
    waits_for: str | None = None
    adapters_due: dict[str, float] = {}
    servings: dict[str, Serving] = {}
    ejected: dict[str, str] = {}

    @property
    def profile(self) -> EngineProfile:
        """What is known of its kind of engine. A row of an unknown kind is treated as somebody else's engine."""
        return PROFILES[self.kind]

    def not_ready(self, now: float, reason: str | None = None, retry_after_s: float | None = None) -> NotTaken:
        """The error of a request for it while it does not serve. `now`: Unix seconds. `reason` and `retry_after_s`
        replace its own, where more is known.
        """
        if self.is_given_up:
            left_s = self.tries_at - now if self.tries_at is not None else None
            return GivenUp(self.name, self.reason or f"it is {self.state}", left_s)
        why = reason or self.reason or self.waits_for or f"it is {self.state}"
        return NotReady(self.name, why, self.retry_after_s if retry_after_s is None else retry_after_s)

    def serving(self, model: str) -> Serving | None:
        """What answers of a model, by the engine's own name, are made from; None while that is not known."""
        return self.servings.get(model) or self.servings.get("")

    def serving_digest(self, model: str) -> str | None:
        """The digest of that serving; None while it is not known, or not what was read."""
        serving = self.servings.get(model) or self.servings.get("")
        return serving.digest if serving is not None else None

    def fact(self, model: str) -> ModelFacts | None:
        """What is known of a model by the engine's own name; None where nothing is. Ollama's `m` is `m:latest`."""
        facts = self.facts
        return (facts.get(model) or facts.get("") or facts.get(full_name(model))) if facts else None

    def fact_name(self, model: str) -> str:
        """The name under which facts about this model are kept."""
        if model in self.facts:
            return model
        profile = self.profile
        return "" if profile.ignores_model_name else full_name(model) if profile.has_tags else model


# Keys and what is in them lead to nothing that leads back to them: the collector need not look at thousands of them.


class Budget(msgspec.Struct, frozen=True, gc=False):
    """What a key may spend in each day, week (from Monday) or month, of the calendar and in UTC."""

    amount: float
    unit: Literal["tokens", "money"]
    per: Literal["day", "week", "month"]


# Over which `rpm` and `tpm` count.
WINDOW_S: Final = 60.0


class KeyLimits(msgspec.Struct, frozen=True, gc=False):
    """What a key may use; None: no limit. `rpm`, `tpm`: requests and tokens in any WINDOW_S. `max_parallel`: requests
    at the same time.
    """

    rpm: int | None = None
    tpm: int | None = None
    max_parallel: int | None = None
    budget: Budget | None = None


class Key(msgspec.Struct, frozen=True, gc=False):
    """A client's key, by its digest. `id`: what it is counted under for as long as it exists, whatever its name;
    of a key in the file its name. `models`: public names and `prefix*` that it may use, None: all. `role`: `user` or
    `admin`. `expires`: Unix seconds, None: never. `is_batch`: where requests wait, others come first. `team`: whom its
    usage is shown with. `limits`: None where it has none.
    """

    name: str
    sha256: str
    models: tuple[str, ...] | None = None
    role: str = "user"
    expires: float | None = None
    is_batch: bool = False
    id: str = ""
    team: str | None = None
    limits: KeyLimits | None = None


class Limits(msgspec.Struct, frozen=True):
    """Bounds of the data path; sizes in bytes, times in seconds. Each is a `server:` setting of the same name.

    `eject_after`: failures in a row after which a target is passed over, 0: never. `retry_budget`: of a model's
    requests, the share that may fail at a further target. `assumed_output_tokens`: set aside for the response of a
    request that does not say how long it may be. `revoked_streams`: what becomes of the running streams of a key that
    is not in the table any more.
    """

    max_body_bytes: int = 32 * 1024 * 1024
    max_bodies_bytes: int = 256 * 1024 * 1024
    max_answer_bytes: int = 64 * 1024 * 1024
    max_event_bytes: int = 16 * 1024 * 1024
    max_connections: int = 2048
    max_choices: int = 128
    headers_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 75.0
    stalled_reader_s: float = 30.0
    hold_s: float = 10.0
    wait_s: float = 300.0
    eject_after: int = 5
    retry_budget: float = 0.2
    assumed_output_tokens: int = 512
    revoked_streams: Literal["finish", "end"] = "finish"


class Tracing(msgspec.Struct, frozen=True):
    """Where the spans of requests are sent, and of which requests; as the settings of the same names say it.

    `url`: what is posted to, whole. `headers` may hold a secret: never log them. `attributes`: of the resource, the
    service's name among them. `sampler`: one of OpenTelemetry's, by its name there; `ratio`: its argument.
    """

    url: str
    headers: dict[str, str] = {}
    certificate: str | None = None
    compression: str = "none"
    timeout_s: float = 10.0
    interval_s: float = 5.0
    attributes: dict[str, str] = {}
    sampler: str = "parentbased_always_on"
    ratio: float = 1.0

    def __repr__(self) -> str:
        return f"<Tracing {self.sampler} {self.ratio}>"


class Table(msgspec.Struct, frozen=True):
    """One version of everything. `created`: Unix seconds, told of every model. `draining`: the gateway is ending."""

    version: int
    models: dict[str, PublicModel]
    aliases: dict[str, str]
    wildcards: tuple[Wildcard, ...]
    backends: dict[str, Backend]
    keys: tuple[Key, ...] = ()
    default_model: str | None = None
    pairs: dict[str, dict[str, str]] = {}  # of models to compare: its name → a word for each → its public name
    limits: Limits = Limits()
    cors_origins: tuple[str, ...] = ()
    root_path: str = ""
    access_log: bool = False
    tracing: Tracing | None = None  # None: no traces are made
    is_loopback: bool = True  # only this machine reaches the listener
    is_alone: bool = True  # no other relay, of this gateway or another, gets what its clients ask
    created: int = 0
    draining: bool = False
    is_closed: bool = False  # a key is needed although there may be none among `keys`
    keeps_usage: bool = False  # a record is kept of each model request (app/usage)
    keys_missing: str | None = None  # why keys may exist that are not among `keys`; None: all that exist are
    keys_unread: bool = False  # this gateway has never known the keys of its store
    is_beginning: bool = False  # it has begun just now, and not agreed with its store yet

    @property
    def is_open(self) -> bool:
        """Whether no key is needed."""
        return not self.keys and not self.is_closed
