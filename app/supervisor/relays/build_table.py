"""The configuration and the backends' situations as one Table for the relays. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from app import __version__
from app.config import cross_checks
from app.config.model import Config, ModelConfig, TargetConfig
from app.config.team import KeyConfig
from app.keys import NO_STORED_KEYS, StoredKeys
from app.supervisor.replicas import replicas
from app.table import Backend, Key, Price, PublicModel, RouteBy, Rules, Table, Target, Wildcard
from backends.endpoint import State
from backends.engine_profile import ModelNames


def build(
    config: Config,
    backends: Mapping[str, Backend],
    version: int,
    draining: bool = False,
    created: int = 0,
    *,
    is_loopback: bool = True,
    max_connections: int | None = None,
    stored: StoredKeys = NO_STORED_KEYS,
    is_beginning: bool = False,
) -> Table:
    """The table of this version. `created`: Unix seconds that `/v1/models` tells of every model. `max_connections`: as
    many as the system lets a relay have, None where that is not known. `stored`: the keys that are not in the file.
    """
    limits = config.server.limits()
    if max_connections is not None and max_connections < limits.max_connections:
        limits = msgspec.structs.replace(limits, max_connections=max_connections)
    plain = {name: model for name, model in config.models.items() if not name.endswith("*")}
    wildcards = [
        Wildcard(name[:-1], target.backend, model.reasoning, model.rules(), _price(model))
        for name, model in config.models.items()
        if name.endswith("*")
        for target in model.all_targets()
    ]
    missing = _missing(backends)
    models = {name: _model(name, model, config, backends, missing) for name, model in plain.items()}
    return Table(
        version=version,
        # A name of the file comes before one that was ordered while the gateway ran.
        models={**models, **{n: each for n, each in _adapters(config, backends, missing).items() if n not in models}},
        aliases={alias: name for name, model in plain.items() for alias in model.aliases},
        wildcards=tuple(sorted(wildcards, key=lambda wildcard: len(wildcard.prefix), reverse=True)),
        backends={**backends, **missing},
        # Of two with one digest the last counts: the file's.
        keys=(*_stored(stored.keys, config), *(each for key in config.keys for each in _keys(key, config))),
        is_closed=stored.is_closed,
        keys_missing=stored.missing,
        keys_unread=stored.is_unread,
        is_beginning=is_beginning,
        default_model=_canonical(config, config.default_model) if config.default_model else None,
        pairs={
            pair: {word: _canonical(config, name) for word, name in members.items()}
            for pair, members in config.pairs.items()
        },
        limits=limits,
        cors_origins=config.server.cors_origins,
        access_log=config.server.access_log,
        keeps_usage=config.usage.records,
        tracing=config.tracing.settings(__version__),
        root_path=config.server.root_path,
        created=created,
        draining=draining,
        is_loopback=is_loopback,
        is_alone=config.server.relays == 1 and config.store.url is None,
    )


def _model(
    name: str,
    model: ModelConfig,
    config: Config,
    backends: Mapping[str, Backend],
    missing: Mapping[str, Backend],
) -> PublicModel:
    """A model of the file. Where it names an adapter that its engine does not have, it is as missing as that is."""
    targets = [(target, replicas_of(target.backend, config)) for target in model.all_targets()]
    weights = replicas.weights([(target.weight, len(names)) for target, names in targets])
    each = tuple(
        _target(backend, engine_name(name, target, backends.get(backend)), weight, missing)
        for (target, names), weight in zip(targets, weights, strict=True)
        for backend in names
    )
    return PublicModel(
        name=name,
        targets=each,
        route=model.route or _default_route(each, backends),
        fallbacks=tuple(_canonical(config, each.model) for each in model.fallbacks),
        fallbacks_for_all=tuple(_canonical(config, each.model) for each in model.fallbacks if each.for_ == "all"),
        reasoning=model.reasoning,
        rules=model.rules(),
        continues_streams=model.continue_streams,
        price=_price(model),
    )


def _price(model: ModelConfig | None) -> Price | None:
    return model.price.price() if model is not None and model.price is not None else None


def _default_route(targets: Sequence[Target], backends: Mapping[str, Backend]) -> RouteBy:
    """By what one of these is chosen where the file does not say: `prefix` for equal engines that keep prefixes."""
    rows = [backends[target.backend] for target in targets if target.backend in backends]
    are_equal = len({target.weight for target in targets}) == len({row.kind for row in rows}) == 1
    return "prefix" if len(targets) > 1 and are_equal and rows[0].profile.keeps_prefixes else "least_busy"


def _target(backend: str, model: str, weight: int, missing: Mapping[str, Backend]) -> Target:
    row = _adapter_row(backend, model)
    return Target(row if row in missing else backend, model, weight)


def _canonical(config: Config, name: str) -> str:
    """The public name that this name or alias stands for; an adapter's name, which no model of the file has, stays."""
    return cross_checks.canonical(config, name) or name


def _adapters(
    config: Config, backends: Mapping[str, Backend], missing: Mapping[str, Backend]
) -> dict[str, PublicModel]:
    """Every adapter as a model of its own. The target of one that its engine does not have is a row with the reason."""
    models: dict[str, PublicModel] = {}
    for entry in config.backends:
        parent = _parent(entry, config)
        parents = config.models.get(parent)
        rows = [backends[name] for name in replicas_of(entry, config) if name in backends]
        for name in dict.fromkeys(name for row in rows for name in row.adapters):
            having = [row.name for row in rows if _adapter_row(row.name, name) not in missing]
            targets = tuple(Target(each, name) for each in having or [_adapter_row(entry, name)])
            models[name] = PublicModel(
                name,
                targets,
                parent=parent,
                route=(parents.route if parents is not None else None) or _default_route(targets, backends),
                reasoning=parents.reasoning if parents is not None else "keep",
                rules=parents.rules() if parents is not None else Rules(),
                continues_streams=parents is not None and parents.continue_streams,
                price=_price(parents),
            )
    return models


def _missing(backends: Mapping[str, Backend]) -> dict[str, Backend]:
    """A row that does not serve for each adapter that an engine serves without."""
    return {
        _adapter_row(row.name, name): Backend(
            _adapter_row(row.name, name),
            row.kind,
            State.FAILED,
            reason,
            is_given_up=True,
            tries_at=row.adapters_due.get(name),
        )
        for row in backends.values()
        for name, reason in row.adapters.items()
        if reason is not None and row.state is State.READY
    }


def _adapter_row(backend: str, adapter: str) -> str:
    return f"{backend}/{adapter}"


def _parent(entry: str, config: Config) -> str:
    """The public name of the model that a backend's adapters belong to; the backend's where it has no public one."""
    for name, model in config.models.items():
        if not name.endswith("*") and any(target.backend == entry for target in model.all_targets()):
            return name
    return entry


def replicas_of(backend: str, config: Config) -> tuple[str, ...]:
    """The names of the backends that an entry of the configuration stands for, its own among them."""
    entry = config.backends.get(backend)
    return replicas.names(backend, entry) if entry is not None else (backend,)


def engine_name(public: str, target: TargetConfig, backend: Backend | None) -> str:
    """The model that the engine is asked for: what the file says, else the public name where the engine lists it, else
    what the profile says (`ModelNames`).

    A remote server that lists one model has one model, whatever it is called. A daemon with one model will have
    others tomorrow, so there only the same name counts (`name`, or `name:latest`, which is how Ollama lists it). A vLLM
    of ours serves its model under the backend's name.
    """
    if target.model is not None:
        return target.model
    listed = backend.models if backend is not None and backend.models is not None else ()
    if public in listed or backend is None:
        return public
    if f"{public}:latest" in listed:
        return f"{public}:latest"
    match backend.profile.model_names:
        case ModelNames.BACKEND:
            return backend.name
        case ModelNames.ONLY_LISTED if len(listed) == 1:
            return listed[0]
        case _:
            return public


def _keys(key: KeyConfig, config: Config) -> Iterator[Key]:
    """A key of the file as the relays know it, and the older ones that it has replaced."""
    expires = key.expires.timestamp() if key.expires is not None else None
    made = Key(
        key.name,
        key.sha256,
        _canonical_models(key.models, config),
        key.role,
        expires,
        is_batch=key.priority == "batch",
        id=key.name,
        team=key.team,
        limits=key.limits(),
    )
    for old in key.replaced:
        until = old.until.timestamp()
        yield msgspec.structs.replace(made, sha256=old.sha256, expires=min(until, expires or until))
    yield made


def _stored(keys: Sequence[Key], config: Config) -> Iterator[Key]:
    for key in keys:
        models = _canonical_models(key.models, config)
        yield key if models == key.models else msgspec.structs.replace(key, models=models)


def _canonical_models(models: Sequence[str] | None, config: Config) -> tuple[str, ...] | None:
    """Aliases are replaced by what they stand for; `prefix*` stays."""
    return None if models is None else tuple(_canonical(config, name) for name in models)
