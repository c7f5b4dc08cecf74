"""Where traces go: the section `tracing:`, and OpenTelemetry's own environment variables over it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from app.config.messages import problems_of
from app.config.settings import Settings
from app.config.yaml_document import ConfigError
from app.table import Tracing

PATH = "/v1/traces"
Sampler = Literal[
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
]


def _with_host(url: str) -> str:
    """The URL. ValueError where no connection can be asked for what it names."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")
        is_usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ValueError("{value} has a host or port that cannot be (`http://HOST:4318`)")
    return url


Url = Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$"), AfterValidator(_with_host)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
# Without these limits a text that is no UTF-8 would pass: the environment may hold one.
AttributeName = Annotated[str, Field(min_length=1, max_length=256)]
AttributeValue = Annotated[str, Field(max_length=4096)]
HeaderValue = Annotated[str, Field(pattern=r"^[\t\x20-\x7e]*$")]


class TracingConfig(BaseModel):
    """Traces of requests (OpenTelemetry). There are none where `endpoint` is not set."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    endpoint: Url | None = Field(
        None, description="The collector, which takes OTLP over HTTP: `http://HOST:4318`. None: no traces."
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict, description="Headers that the collector wants, such as its key."
    )
    certificate: str | None = Field(
        None, min_length=1, description="A file with the certificates that an https collector is checked against."
    )
    compression: Literal["none", "gzip"] = Field("none", description="How what is sent is compressed.")
    timeout_s: float = Field(10.0, gt=0, le=600, description="Seconds that the collector may take for one batch.")
    interval_s: float = Field(5.0, gt=0, le=600, description="Seconds between two batches.")
    service_name: str = Field("modelport", min_length=1, max_length=256, description="What traces call the gateway.")
    attributes: dict[AttributeName, AttributeValue] = Field(
        default_factory=dict, description="More about this gateway: `{deployment.environment.name: production}`."
    )
    sampler: Sampler = Field(
        "parentbased_always_on", description="Which requests are traced, by OpenTelemetry's names for samplers."
    )
    ratio: float = Field(1.0, ge=0, le=1, description="The share of requests for the samplers `…traceidratio`.")

    def settings(self, version: str) -> Tracing | None:
        """The same for the relays; None where there are no traces. `version`: of the gateway."""
        if self.endpoint is None:
            return None
        url = self.endpoint if urlsplit(self.endpoint).path.endswith(PATH) else self.endpoint.rstrip("/") + PATH
        return Tracing(
            url=url,
            headers=self.headers,
            certificate=self.certificate,
            compression=self.compression,
            timeout_s=self.timeout_s,
            interval_s=self.interval_s,
            attributes={
                "service.name": self.service_name,
                "service.version": version,
                "process.runtime.version": platform.python_version(),
                **self.attributes,
            },
            sampler=self.sampler,
            ratio=self.ratio,
        )


def with_environment(config: TracingConfig, settings: Settings) -> TracingConfig:
    """The section with OpenTelemetry's variables over it. ConfigError, by the variable's name, for a value that cannot
    be used; where there are no traces, nothing of them is looked at.
    """
    given = _given(settings)
    endpoint = given.get("endpoint", config.endpoint)
    is_disabled = (settings.otel_sdk_disabled or "").lower() == "true" or settings.otel_traces_exporter == "none"
    if endpoint is None or is_disabled:
        return config.model_copy(update={"endpoint": None})
    problems = [f"environment: {name}: {problem}" for name, problem in _unusable(settings)]
    try:
        checked = TracingConfig.model_validate(config.model_dump() | given)
    except ValidationError as exc:
        problems += [
            f"environment: {VARIABLES.get(str(place[0]), place[0])}: {text}"
            for place, text in problems_of(TracingConfig, exc, {("headers", name) for name in given.get("headers", ())})
        ]
    if problems:
        raise ConfigError(problems)
    return checked


VARIABLES: Mapping[str, str] = {
    "endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "headers": "OTEL_EXPORTER_OTLP_HEADERS",
    "certificate": "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "compression": "OTEL_EXPORTER_OTLP_COMPRESSION",
    "timeout_s": "OTEL_EXPORTER_OTLP_TIMEOUT",
    "interval_s": "OTEL_BSP_SCHEDULE_DELAY",
    "service_name": "OTEL_SERVICE_NAME",
    "attributes": "OTEL_RESOURCE_ATTRIBUTES",
    "sampler": "OTEL_TRACES_SAMPLER",
    "ratio": "OTEL_TRACES_SAMPLER_ARG",
}


def _given(settings: Settings) -> dict[str, Any]:
    """What the environment says, by the section's names."""
    base = settings.otel_exporter_otlp_endpoint
    headers = settings.otel_exporter_otlp_headers
    attributes = settings.otel_resource_attributes
    given: dict[str, Any] = {
        # This one is whole; to the other the path is added, also where it has one.
        "endpoint": settings.otel_exporter_otlp_traces_endpoint or (base and base.rstrip("/") + PATH),
        "headers": headers and pairs(headers.get_secret_value()),
        "certificate": settings.otel_exporter_otlp_certificate,
        "compression": settings.otel_exporter_otlp_compression,
        "timeout_s": _from_ms(settings.otel_exporter_otlp_timeout),
        "interval_s": _from_ms(settings.otel_bsp_schedule_delay),
        "service_name": settings.otel_service_name or (attributes and pairs(attributes).get("service.name")),
        "attributes": attributes
        and {name: value for name, value in pairs(attributes).items() if name != "service.name"},
        "sampler": settings.otel_traces_sampler,
        "ratio": settings.otel_traces_sampler_arg,
    }
    return {name: value for name, value in given.items() if value is not None}


def _unusable(settings: Settings) -> list[tuple[str, str]]:
    problems = []
    if settings.otel_exporter_otlp_protocol not in (None, "http/protobuf"):
        problem = f"'{settings.otel_exporter_otlp_protocol}' is not spoken here: set it to http/protobuf (port 4318)"
        problems.append(("OTEL_EXPORTER_OTLP_PROTOCOL", problem))
    if settings.otel_traces_exporter not in (None, "otlp"):
        problem = f"'{settings.otel_traces_exporter}' is not known here (known: otlp, none)"
        problems.append(("OTEL_TRACES_EXPORTER", problem))
    return problems


def _from_ms(value: str | None) -> float | str | None:
    """Milliseconds as seconds; what is no number stays, and is refused later."""
    try:
        return float(value) / 1000 if value is not None else None
    except ValueError:
        return value


def pairs(text: str) -> dict[str, str]:
    """The pairs of `name=value,name=value`, percent-decoded, as OpenTelemetry's variables hold them."""
    each = (part.partition("=") for part in text.split(",") if part.strip())
    return {unquote(name.strip()): unquote(value.strip()) for name, _, value in each}
