"""app/config/tracing.py: the section `tracing:`, with OpenTelemetry's variables over it."""

from __future__ import annotations

import dataclasses

import pytest

from app.config.load import load_all
from app.config.settings import resolve
from app.config.tracing import pairs
from app.config.yaml_document import ConfigError
from app.table import Tracing

MODELS = 'backends: {b: {kind: remote, url: "http://127.0.0.1:9/v1"}}\nmodels: {m: {backend: b}}\n'
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}


def tracing(section: str = "", **env: str) -> Tracing | None:
    """What the relays get of this section and these variables."""
    text = f"{MODELS}tracing: {{{section}}}\n"
    options = dataclasses.replace(resolve(env), config_path=None, config_text=text)
    return load_all(options).tracing.settings("1.2.3")


def settings(section: str = "", **env: str) -> Tracing:
    made = tracing(section, **env)
    assert made is not None
    return made


def test_there_are_no_traces_until_somebody_wants_them() -> None:
    assert tracing() is None
    assert tracing("ratio: 0.5", OTEL_SERVICE_NAME="gateway") is None


def test_a_file_says_it_all() -> None:
    section = (
        "endpoint: 'https://c:4318', headers: {x-key: abc}, certificate: /ca.pem, compression: gzip, timeout_s: 3, "
        "interval_s: 1, service_name: gateway, attributes: {a: b}, sampler: traceidratio, ratio: 0.5"
    )
    made = settings(section)

    assert made.attributes.items() >= {"service.name": "gateway", "service.version": "1.2.3", "a": "b"}.items()
    assert without_attributes(made) == {
        "url": "https://c:4318/v1/traces",
        "headers": {"x-key": "abc"},
        "certificate": "/ca.pem",
        "compression": "gzip",
        "timeout_s": 3.0,
        "interval_s": 1.0,
        "sampler": "traceidratio",
        "ratio": 0.5,
    }


def without_attributes(made: Tracing) -> dict[str, object]:
    return {name: getattr(made, name) for name in made.__struct_fields__ if name != "attributes"}


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("http://c:4318/v1/traces", "http://c:4318/v1/traces"),
        ("https://c/otlp", "https://c/otlp/v1/traces"),
    ],
)
def test_the_path_is_added_where_it_is_not_there(endpoint: str, url: str) -> None:
    assert settings(f"endpoint: '{endpoint}'").url == url


def test_the_environment_goes_before_the_file() -> None:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://env:4318/",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20b, other=c",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "/env.pem",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2000",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "OTEL_SERVICE_NAME": "env",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=loses,zone=eu",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_SDK_DISABLED": "false",
    }
    made = settings("endpoint: 'http://file:4318', service_name: file, ratio: 1", **env)

    assert (made.attributes["service.name"], made.attributes["zone"]) == ("env", "eu")
    assert without_attributes(made) == {
        "url": "http://env:4318/v1/traces",
        "headers": {"x-key": "a b", "other": "c"},
        "certificate": "/env.pem",
        "compression": "gzip",
        "timeout_s": 2.0,
        "interval_s": 0.5,
        "sampler": "parentbased_traceidratio",
        "ratio": 0.25,
    }


def test_the_variable_for_traces_is_whole_and_goes_before_the_other() -> None:
    made = settings(**ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://t:1/otlp/v1/traces")

    assert made.url == "http://t:1/otlp/v1/traces"


def test_the_name_may_stand_among_the_attributes() -> None:
    assert settings(**ENDPOINT, OTEL_RESOURCE_ATTRIBUTES="service.name=a").attributes["service.name"] == "a"


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "TRUE"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_the_environment_can_switch_them_off(off: dict[str, str]) -> None:
    assert tracing("endpoint: 'http://file:4318'", **ENDPOINT, **off) is None


WRONG = {
    "OTEL_TRACES_SAMPLER": ("jaeger_remote", "is not allowed here (known: always_on, always_off, traceidratio,"),
    "OTEL_TRACES_SAMPLER_ARG": ("2", "'2' is not a number of at most 1"),
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("grpc", "'grpc' is not spoken here: set it to http/protobuf (port 4318)"),
    "OTEL_EXPORTER_OTLP_TIMEOUT": ("soon", "'soon' is not a number"),
    "OTEL_BSP_SCHEDULE_DELAY": ("-1", "is not a number of"),
    "OTEL_EXPORTER_OTLP_COMPRESSION": ("zstd", "'zstd' is not allowed here (known: none, gzip)"),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("c:4317", "is not an address http://… or https://…"),
    "OTEL_TRACES_EXPORTER": ("console", "'console' is not known here (known: otlp, none)"),
}


@pytest.mark.parametrize("variable", WRONG)
def test_a_value_that_cannot_be_used_is_told_by_its_variable(variable: str) -> None:
    value, told = WRONG[variable]
    with pytest.raises(ConfigError) as caught:
        tracing(**{**ENDPOINT, variable: value})

    (line,) = caught.value.errors
    assert line.startswith(f"environment: {variable}: ")
    assert told in line


@pytest.mark.parametrize(
    "address", ["http://c:99999", "http://c:x", "http://[::1:4318", f"http://{'a' * 64}", "http://:1"]
)
def test_an_address_that_cannot_be_is_refused_and_not_only_never_reached(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tracing(OTEL_EXPORTER_OTLP_ENDPOINT=address)

    (line,) = caught.value.errors
    assert line.startswith("environment: OTEL_EXPORTER_OTLP_ENDPOINT: ")
    assert "has a host or port that cannot be" in line


@pytest.mark.parametrize("attributes", ["a\udcff=b", "a=\udcff", "a=1,=2"])
def test_attributes_that_no_trace_can_carry_are_refused(attributes: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tracing(**ENDPOINT, OTEL_RESOURCE_ATTRIBUTES=attributes)

    assert all(line.startswith("environment: OTEL_RESOURCE_ATTRIBUTES: ") for line in caught.value.errors)


@pytest.mark.parametrize("variable", sorted(set(WRONG) - {"OTEL_EXPORTER_OTLP_ENDPOINT"}))
def test_nothing_of_it_is_looked_at_where_there_are_no_traces(variable: str) -> None:
    assert tracing(**{variable: WRONG[variable][0]}) is None


def test_a_secret_that_is_written_wrongly_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        tracing(**ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS="x-key=se%0Acret")

    assert "cret" not in str(caught.value)
    assert "OTEL_EXPORTER_OTLP_HEADERS: the value (not shown)" in str(caught.value)


def test_pairs_are_read_as_opentelemetry_writes_them() -> None:
    assert pairs("a=1, b=x=y ,,c=%2C,d=") == {"a": "1", "b": "x=y", "c": ",", "d": ""}
