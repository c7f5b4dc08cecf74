"""Settings from the environment and the command line. The environment is always passed in, never read here."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias

import platformdirs
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from app.config.messages import problems_of
from app.config.yaml_document import ConfigError, KeyPath
from app.log_format import LogFormat, LogLevel

CONFIG_NAME = "modelport.yaml"
CONTROL_SOCKET = "control.sock"
Port = Annotated[int, Field(ge=0, le=65535)]


def relays(value: object) -> int | Literal["auto"]:
    """How many relays somebody wants: `auto`, or a number, which may be written in digits. ValueError otherwise."""
    if value == "auto":
        return "auto"
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= MOST_RELAYS:
        return number
    # Whoever catches it knows whether the value may be shown.
    raise ValueError(f"{{value}} is neither a number from 1 to {MOST_RELAYS} nor auto")


MOST_RELAYS: Final = 64
Relays: TypeAlias = Annotated[Annotated[int, Field(ge=1, le=MOST_RELAYS)] | Literal["auto"], BeforeValidator(relays)]


# The size of sockaddr_un.sun_path without its closing zero byte.
_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
_LONGEST_NAME = CONTROL_SOCKET


class Settings(BaseSettings):
    """Every environment variable, by its own name in lower case. LLaMA-Factory's names keep their meaning."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, case_sensitive=False, env_ignore_empty=True)

    api_host: str | None = Field(
        None, min_length=1, description="Address to listen on. Default: `server.host`, 127.0.0.1. Others need a key."
    )
    api_port: Port | None = Field(None, description="Port to listen on. Default: `server.port`, 8000.")
    api_key: SecretStr | None = Field(
        None, description="One key or several, comma separated; each opens every model and has the role admin."
    )
    api_model_name: str | None = Field(
        None, min_length=1, description="One more name for the default model, or for the only one."
    )
    fastapi_root_path: str | None = Field(
        None,
        pattern=r"^(/[^\s?#]*[^/\s?#])?$",
        description="Path under which a proxy publishes the gateway. Default: `server.root_path`.",
    )
    modelport_config: Path | None = Field(
        None, description="Configuration file. Default: modelport.yaml in the working folder, when there is one."
    )
    modelport_state: Path | None = Field(None, description="State folder. Default: the platform's user state folder.")
    modelport_tools: Path | None = Field(
        None, description="Folder of the tool environments. Default: `tools` in the state folder."
    )
    modelport_relays: Relays | None = Field(
        None, description="Relay processes, or `auto`. Default: `server.relays`, 1."
    )
    modelport_metrics_host: str | None = Field(
        None,
        pattern=r"^[^\s/]+$",
        description="Address of the metrics' own port. Default: `server.metrics_host`, 127.0.0.1.",
    )
    modelport_metrics_port: Port | None = Field(
        None, description="A port for metrics alone, without a key. Default: `server.metrics_port`, none."
    )
    modelport_log_level: LogLevel | None = Field(None, description="debug, info, warning or error. Default: info.")
    modelport_log_format: LogFormat | None = Field(
        None, description="console or json. Default: console on a terminal, else json."
    )
    modelport_vllm: str | None = Field(
        None, description="How `modelport api` calls vLLM, when it is not `vllm` on PATH."
    )
    ollama_host: str | None = Field(
        None, description="The Ollama daemon, used when there is no configuration file. Default: 127.0.0.1:11434."
    )

    # OpenTelemetry's own, under its names (app/config/tracing.py). Their values are checked where there are traces.
    otel_exporter_otlp_endpoint: str | None = Field(
        None, description="Collector of traces, `http://HOST:4318`; switches them on. Default: `tracing.endpoint`."
    )
    otel_exporter_otlp_traces_endpoint: str | None = Field(
        None, description="The same with its whole path (`…/v1/traces`), before the other."
    )
    otel_exporter_otlp_headers: SecretStr | None = Field(
        None, description="`NAME=VALUE,…`: headers that the collector wants. Default: `tracing.headers`."
    )
    otel_exporter_otlp_certificate: str | None = Field(
        None, description="File that an https collector is checked against. Default: `tracing.certificate`."
    )
    otel_exporter_otlp_compression: str | None = Field(
        None, description="none or gzip. Default: `tracing.compression`, none."
    )
    otel_exporter_otlp_timeout: str | None = Field(
        None, description="Milliseconds for one batch. Default: `tracing.timeout_s`, 10000."
    )
    otel_exporter_otlp_protocol: str | None = Field(
        None, description="http/protobuf, the only one that is spoken. Default: http/protobuf."
    )
    otel_bsp_schedule_delay: str | None = Field(
        None, description="Milliseconds between two batches. Default: `tracing.interval_s`, 5000."
    )
    otel_service_name: str | None = Field(
        None, description="What traces call the gateway. Default: `tracing.service_name`, modelport."
    )
    otel_resource_attributes: str | None = Field(
        None, description="`NAME=VALUE,…`: more about this gateway. Default: `tracing.attributes`."
    )
    otel_traces_sampler: str | None = Field(
        None, description="Which requests are traced. Default: `tracing.sampler`, parentbased_always_on."
    )
    otel_traces_sampler_arg: str | None = Field(
        None, description="Their share, for the samplers `…traceidratio`. Default: `tracing.ratio`, 1."
    )
    otel_traces_exporter: str | None = Field(None, description="otlp, or none for no traces. Default: otlp.")
    otel_sdk_disabled: str | None = Field(None, description="true: no traces. Default: false.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only values that are passed in: the environment comes through `from_env`."""
        return (init_settings,)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """The settings in `env`. ConfigError names every variable that is invalid."""
        source = EnvSettingsSource(cls)
        source.env_vars = {name.lower(): value for name, value in env.items() if value}
        try:
            return cls(**source())
        except ValidationError as exc:
            raise ConfigError(
                [f"environment: {_variable(place)}: {text}" for place, text in problems_of(cls, exc, set())]
            ) from exc

    def keys(self) -> tuple[str, ...]:
        """The keys in API_KEY. ConfigError when it is set and holds no key, or one that no HTTP header can carry."""
        if self.api_key is None:
            return ()
        keys = [part.strip() for part in self.api_key.get_secret_value().split(",")]
        keys = list(dict.fromkeys(key for key in keys if key))
        if not keys:
            raise ConfigError(["environment: API_KEY: is set and holds no key"])
        if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
            raise ConfigError(
                ["environment: API_KEY: a key must be printable ASCII without blanks: a header carries it"]
            )
        return tuple(keys)


def _variable(place: KeyPath) -> str:
    return ".".join(str(part) for part in place).upper()


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What one start of the gateway is called with. `None`: not given on the command line.

    `config_text`: the configuration itself, where a verb wrote it and no file holds it. `env` is the whole environment:
    `${NAME}` in the file is filled in from it, again at every reload.
    """

    state: Path
    config_path: Path | None = None
    config_text: str | None = None
    host: str | None = None
    port: int | None = None
    relays: Relays | None = None
    insecure_no_key: bool = False
    log_format: LogFormat = "console"
    log_level: LogLevel = "info"
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_implicit(self) -> bool:
        """Whether nobody configured anything."""
        return self.config_path is None and self.config_text is None


def resolve(
    env: Mapping[str, str],
    *,
    config: Path | None = None,
    state: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    relays: Relays | None = None,
    insecure_no_key: bool = False,
    log_format: LogFormat | None = None,
    is_terminal: bool = False,
) -> ServeOptions:
    """The options of a start: a flag goes before the environment, that before the default.

    ConfigError when the environment is invalid or the state folder's path is too long.
    """
    settings = Settings.from_env(env)
    return ServeOptions(
        state=state_folder(state or settings.modelport_state),
        config_path=config_path(config or settings.modelport_config),
        host=host,
        port=port,
        relays=relays,
        insecure_no_key=insecure_no_key,
        log_format=log_format or settings.modelport_log_format or ("console" if is_terminal else "json"),
        log_level=settings.modelport_log_level or "info",
        env=env,
    )


def config_path(given: Path | None) -> Path | None:
    """The configuration file: the given one, else modelport.yaml in the working folder; None when that is missing."""
    if given is not None:
        return given
    here = Path(CONFIG_NAME)
    return here if here.is_file() else None


def state_folder(given: Path | None) -> Path:
    """The absolute path of the state folder, not created here. ConfigError when it is too long for a Unix socket."""
    folder = (given or Path(platformdirs.user_state_dir("modelport", appauthor=False))).expanduser().absolute()
    size = len(os.fsencode(folder / _LONGEST_NAME))
    if size > _SOCKET_PATH_BYTES:
        raise ConfigError(
            [
                f"state folder: '{folder}' is too long for a Unix socket: {folder.name}/{_LONGEST_NAME} would have "
                f"{size} bytes with its folders, and {_SOCKET_PATH_BYTES} are possible. Set MODELPORT_STATE or --state "
                "to a shorter path."
            ]
        )
    return folder
