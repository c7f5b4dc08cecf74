"""Whether the names in a configuration fit together. Every problem is reported with its place in the file. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from app.config.messages import nearest
from app.config.yaml_document import KeyPath
from backends.config.checks import contradictions
from backends.remote.config import RemoteConfig

if TYPE_CHECKING:
    from app.config.model import Config, ModelConfig, ServerConfig

Problem = tuple[KeyPath, str]
MOST_ADDRESSES = 64  # that one host name is followed to
MOST_COMPARED = 8  # models, side by side


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`, a name or an address."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_everywhere(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


def listens_twice(server: ServerConfig) -> bool:
    """Whether the port of the metrics is the gateway's own, on an address that both would listen on."""
    hosts = {"127.0.0.1" if host.lower() == "localhost" else host for host in (server.host, server.metrics_host)}
    is_same_port = bool(server.port) and server.port == server.metrics_port
    return is_same_port and (len(hosts) == 1 or any(map(_is_everywhere, hosts)))


def canonical(config: Config, name: str) -> str | None:
    """The public name for a name or an alias; None when it is neither."""
    if name in config.models:
        return name
    return next((public for public, model in config.models.items() if name in model.aliases), None)


def _public_names(config: Config, models: Sequence[str]) -> list[str]:
    """The names that clients may write, those of adapters among them; without those that end in `*`."""
    aliases = {alias for model in config.models.values() for alias in model.aliases}
    adapters = [name for entry in config.backends.values() for name in getattr(entry, "adapters", {})]
    return list(dict.fromkeys([*(name for name in models if not name.endswith("*")), *sorted(aliases), *adapters]))


def unknown_models(config: Config, names: Sequence[str]) -> list[str]:
    """Of names that a key is to open, a sentence for each that is not public here."""
    models = list(config.models)
    known, prefixes = _public_names(config, models), [name[:-1] for name in models if name.endswith("*")]
    return [
        f"'{name}' is not a model here {nearest(name, known)}"
        for name in names
        if name not in known and not any(name.startswith(prefix) for prefix in prefixes)
    ]


def problems(config: Config, backends: Sequence[str], models: Sequence[str]) -> list[Problem]:
    """What is wrong with the references in `config`, each as (place in the file, sentence).

    `backends` and `models` are all names in the file, also those of invalid entries: a reference to one of these is not
    a second error.
    """
    problems: list[Problem] = []
    aliases = {alias for model in config.models.values() for alias in model.aliases}
    known = _public_names(config, models)
    for name, model in config.models.items():
        problems += _model(name, model, backends, known)
    problems += _aliases(config, models)
    problems += _cycles(config)
    problems += _keys(config, models, known)
    problems += _pairs(config, models, known)
    problems += _remotes(config)
    problems += _replicas(config, backends)
    for name, backend in config.backends.items():
        problems += [(("backends", name, key), text) for key, text in contradictions(backend)]
    problems += _adapters(config, models, aliases)
    default = config.default_model
    if default is not None and default not in known:
        problems.append((("default_model",), f"'{default}' is not a model here {nearest(default, known)}"))
    return problems


def _model(name: str, model: ModelConfig, backends: Sequence[str], known: Sequence[str]) -> Iterator[Problem]:
    place: KeyPath = ("models", name)
    if not name.isprintable() or name != name.strip():
        yield place, "a public name has no blanks around it and no invisible characters"
    if "*" in name:
        yield from _wildcard(place, name, model)
    if (model.backend is None) == (model.targets is None):
        yield place, "needs either `backend` or `targets`" + (", not both" if model.backend else "")
    if model.targets is not None and model.model is not None:
        yield (*place, "model"), "belongs to each of the `targets` when there are several"
    for index, target in enumerate(model.all_targets()):
        if target.backend not in backends:
            where = (*place, "backend") if model.targets is None else (*place, "targets", index, "backend")
            yield where, f"'{target.backend}' is not a backend here {nearest(target.backend, backends)}"
    for index, other in enumerate(model.fallbacks):
        if other.model not in known:
            yield (*place, "fallbacks", index), f"'{other.model}' is not a model here {nearest(other.model, known)}"


def _wildcard(place: KeyPath, name: str, model: ModelConfig) -> Iterator[Problem]:
    if name.index("*") != len(name) - 1:
        yield place, "a `*` may only be the last character of a name"
    for key in ("model", "targets", "aliases", "fallbacks", "route"):
        if getattr(model, key):
            yield (*place, key), "is not possible for a name that ends in `*`: it stands for many models of one backend"


def _aliases(config: Config, models: Sequence[str]) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    for name, model in config.models.items():
        for index, alias in enumerate(model.aliases):
            place: KeyPath = ("models", name, "aliases", index)
            if alias in models:
                yield place, f"'{alias}' is already a model's own name"
            elif alias in owners:
                yield place, f"'{alias}' is already an alias of '{owners[alias]}'"
            elif "*" in alias:
                yield place, f"'{alias}' is not possible: an alias is one whole name"
            owners.setdefault(alias, name)


def _cycles(config: Config) -> Iterator[Problem]:
    """Every fallback that leads back to a model it came from."""
    finished: set[str] = set()

    def walk(path: tuple[str, ...]) -> Iterator[Problem]:
        for index, fallback in enumerate(config.models[path[-1]].fallbacks):
            name = canonical(config, fallback.model)
            if name in path:
                circle = " → ".join((*path[path.index(name) :], name))
                yield ("models", path[-1], "fallbacks", index), f"'{fallback.model}' closes a circle: {circle}"
            elif name is not None and name not in finished:
                yield from walk((*path, name))
        finished.add(path[-1])

    for name in config.models:
        if name not in finished:
            yield from walk((name,))


def _adapters(config: Config, models: Sequence[str], aliases: Collection[str]) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    for backend, entry in config.backends.items():
        for name in getattr(entry, "adapters", {}):
            place: KeyPath = ("backends", backend, "adapters", name)
            if name in models or name in aliases:
                yield place, f"'{name}' is already the name or an alias of a model"
            elif name in owners:
                yield place, f"'{name}' is already an adapter of '{owners[name]}'"
            owners.setdefault(name, backend)


def _remotes(config: Config) -> Iterator[Problem]:
    for name, backend in config.backends.items():
        if not isinstance(backend, RemoteConfig):
            continue
        place: KeyPath = ("backends", name)
        if (backend.url is None) is (not backend.urls):
            yield place, "needs either `url` or `urls`" + (", not both" if backend.urls else "")
        elif backend.addresses is not None and backend.url is None:
            yield (*place, "addresses"), "are those of one `url`"
        for key in ("urls", "addresses"):
            addresses = getattr(backend, key)
            for index, each in enumerate(addresses if isinstance(addresses, tuple) else ()):
                if each in addresses[:index]:
                    yield (*place, key, index), f"'{each}' is there twice"


def _replicas(config: Config, backends: Sequence[str]) -> Iterator[Problem]:
    for name, backend in config.backends.items():
        count: int = getattr(backend, "replicas", 1)
        if isinstance(backend, RemoteConfig):
            count = MOST_ADDRESSES if backend.addresses == "dns" else len(backend.engines())
        for taken in {f"{name}#{number}" for number in range(2, count + 1)} & set(backends):
            yield ("backends", taken), f"is the name of a replica of '{name}'"


def _pairs(config: Config, models: Sequence[str], known: Sequence[str]) -> Iterator[Problem]:
    prefixes = [name[:-1] for name in models if name.endswith("*")]
    for pair, members in config.pairs.items():
        place: KeyPath = ("pairs", pair)
        if not 2 <= len(members) <= MOST_COMPARED:
            yield place, f"needs 2 to {MOST_COMPARED} models to compare, and has {len(members)}"
        compared: dict[str, str] = {}
        for word, name in members.items():
            meant = canonical(config, name) or name
            if name not in known and not any(name.startswith(prefix) for prefix in prefixes):
                yield (*place, word), f"'{name}' is not a model here {nearest(name, known)}"
            elif meant in compared:
                yield (*place, word), f"'{name}' is the same model as '{compared[meant]}'"
            compared.setdefault(meant, word)


def _keys(config: Config, models: Sequence[str], known: Sequence[str]) -> Iterator[Problem]:
    prefixes = [name[:-1] for name in models if name.endswith("*")]
    names: set[str] = set()
    digests: set[str] = set()
    for index, key in enumerate(config.keys):
        place: KeyPath = ("keys", index)
        if key.name in names:
            yield (*place, "name"), f"'{key.name}' is already another key's name"
        if key.sha256 in digests:
            yield (*place, "sha256"), "is the digest of a key that is already there"
        names.add(key.name)
        digests.add(key.sha256)
        for position, old in enumerate(key.replaced):
            if old.sha256 in digests:
                yield (*place, "replaced", position, "sha256"), "is the digest of a key that is already there"
            digests.add(old.sha256)
        for position, name in enumerate(key.models or ()):
            if name not in known and not any(name.startswith(prefix) for prefix in prefixes):
                yield (*place, "models", position), f"'{name}' is not a model here {nearest(name, known)}"
