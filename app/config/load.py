"""Loads the whole configuration from the file, the environment and the command line.

A flag goes before the environment, that before the file, that before the default. All problems of a file are reported
at once (ConfigError.errors).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.config import cross_checks
from app.config.messages import problems_of
from app.config.model import Config, ServerConfig
from app.config.settings import ServeOptions, Settings
from app.config.team import KeyConfig
from app.config.tracing import with_environment
from app.config.yaml_document import ConfigError, Document, KeyPath, dotted, parse
from app.keys import digest


def load(path: Path, env: Mapping[str, str]) -> Config:
    """The configuration in a file, with `${NAME}` filled in from `env`. ConfigError lists all its problems."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise ConfigError([f"{path}: cannot be read: {exc.strerror or exc}"]) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError([f"{path}: is not UTF-8 text (byte {exc.start})"]) from exc
    return loads(text, env, source=str(path))


def loads(text: str, env: Mapping[str, str], *, source: str, is_lenient: bool = False) -> Config:
    """As `load`, for text. `source`: what errors call it; `is_lenient`: a variable that is not set is not an error."""
    try:
        document = parse(text, env, is_lenient=is_lenient)
    except ConfigError as exc:
        raise ConfigError([f"{source}: {error}" for error in exc.errors]) from exc
    config, problems = _check(document)
    if problems:
        raise ConfigError([": ".join(filter(None, (source, dotted(place), text))) for place, text in problems])
    return config


def _check(document: Document) -> tuple[Config, list[tuple[KeyPath, str]]]:
    """The configuration without the invalid entries of the document, and every problem."""
    tree = {key: value for key, value in document.tree.items() if value is not None or key == "default_model"}
    problems = list(document.problems)
    try:
        config = Config.model_validate(tree)
    except ValidationError as exc:
        invalid = problems_of(Config, exc, document.hidden)
        problems += [(place, text) for place, text in invalid if place not in document.unusable]
        config = Config.model_validate(_without(tree, {place[:2] for place, _ in invalid}))
    if not tree.get("models"):
        problems.append((("models",), "is missing: nothing would be served"))
    problems += cross_checks.problems(config, _names(tree, "backends"), _names(tree, "models"))
    return config, problems


def _without(tree: Mapping[str, Any], invalid: set[KeyPath]) -> dict[str, Any]:
    """The tree without the invalid entries (`backends.gpu`, `keys[0]`, `server.port`, `default_model`)."""
    rest: dict[str, Any] = {}
    for section, value in tree.items():
        if (section,) in invalid:
            continue
        if isinstance(value, dict):
            rest[section] = {key: item for key, item in value.items() if (section, key) not in invalid}
        elif isinstance(value, list):
            rest[section] = [item for index, item in enumerate(value) if (section, index) not in invalid]
        elif not any(place[0] == section for place in invalid):  # the short form of a section, such as a URL
            rest[section] = value
    return rest


def _names(tree: Mapping[str, Any], section: str) -> list[str]:
    value = tree.get(section)
    return list(value) if isinstance(value, dict) else []


def load_all(options: ServeOptions, bound: str | None = None, has_stored_keys: bool = False) -> Config:
    """File, environment and flags as one configuration, for a start and for every reload. ConfigError as `load`.

    `bound`: the address that a running gateway listens on, which it keeps until it is restarted. `has_stored_keys`: the
    store has keys, so that nobody gets in without one; a gateway with a PostgreSQL store takes that for granted.
    """
    settings = Settings.from_env(options.env)
    path = options.config_path
    if path is not None:
        config = load(path, options.env)
    elif options.config_text is not None:
        config = loads(options.config_text, options.env, source="the configuration")
    else:
        config = Config.implicit(settings)
    given = {
        "host": options.host if options.host is not None else settings.api_host,
        "port": options.port if options.port is not None else settings.api_port,
        "relays": options.relays if options.relays is not None else settings.modelport_relays,
        "root_path": settings.fastapi_root_path,
        "metrics_host": settings.modelport_metrics_host,
        "metrics_port": settings.modelport_metrics_port,
    }
    server = config.server.model_copy(update={name: value for name, value in given.items() if value is not None})
    config = config.model_copy(
        update={
            "server": server,
            "keys": config.keys + _environment_keys(settings),
            "tracing": with_environment(config.tracing, settings),
        }
    )
    config = _with_alias(config, settings.api_model_name)
    if cross_checks.listens_twice(config.server):
        where = (
            "environment: MODELPORT_METRICS_PORT" if settings.modelport_metrics_port else f"{path}: server.metrics_port"
        )
        raise ConfigError([f"{where}: {server.metrics_port} is the gateway's own port, too: choose another"])
    is_closed = bool(config.keys) or has_stored_keys or config.store.url is not None
    if not (is_closed or options.insecure_no_key):
        _refuse_what_is_open(config.server, options, settings, bound)
    return config


def _refuse_what_is_open(server: ServerConfig, options: ServeOptions, settings: Settings, bound: str | None) -> None:
    """ConfigError where other machines could use the gateway without a key, of which there is none."""
    path = options.config_path
    if not cross_checks.is_loopback(server.host):
        where = (
            "--host"
            if options.host is not None
            else "environment: API_HOST"
            if settings.api_host
            else f"{path}: server.host"
        )
        raise ConfigError(
            [
                f"{where}: '{server.host}' is reachable from other machines and there is no key: set API_KEY, add one "
                "with `modelport keys new`, or pass --insecure-no-key"
            ]
        )
    has_open_metrics = server.metrics_port is not None and not cross_checks.is_loopback(server.metrics_host)
    if has_open_metrics:
        from_env = settings.modelport_metrics_host is not None
        where = "environment: MODELPORT_METRICS_HOST" if from_env else f"{path}: server.metrics_host"
        raise ConfigError(
            [
                f"{where}: '{server.metrics_host}' is reachable from other "
                "machines, and there is no key: set API_KEY, add one with `modelport keys new`, leave it at 127.0.0.1, "
                "or pass --insecure-no-key"
            ]
        )
    if bound is not None and not cross_checks.is_loopback(bound):
        raise ConfigError(
            [
                f"{path or 'environment'}: keys: there is no key any more, but until it is restarted the gateway "
                f"listens on '{bound}', which other machines can reach: keep a key, or restart it"
            ]
        )


def _environment_keys(settings: Settings) -> tuple[KeyConfig, ...]:
    """The keys in API_KEY, as keys of role admin named API_KEY, or API_KEY-1, API_KEY-2 … when there are several."""
    keys = settings.keys()
    names = ["API_KEY"] if len(keys) == 1 else [f"API_KEY-{index}" for index in range(1, len(keys) + 1)]
    return tuple(KeyConfig(name=name, sha256=digest(key), role="admin") for name, key in zip(names, keys, strict=True))


def _with_alias(config: Config, alias: str | None) -> Config:
    """The configuration with API_MODEL_NAME as one more alias of the default model, else of the only model."""
    models = config.models
    if alias is None or alias in models or any(alias in model.aliases for model in models.values()):
        return config
    plain = [name for name in models if not name.endswith("*")]
    default = cross_checks.canonical(config, config.default_model) if config.default_model else None
    name = default or (plain[0] if len(plain) == 1 else None)
    if name is None:
        problem = f"'{alias}' could mean any of {len(plain)} models: set default_model in the file"
        raise ConfigError([f"environment: API_MODEL_NAME: {problem}"])
    model = models[name].model_copy(update={"aliases": (*models[name].aliases, alias)})
    return config.model_copy(update={"models": {**models, name: model}})
