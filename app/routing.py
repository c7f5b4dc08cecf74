"""Which engines may serve a name, and in which order. Pure: the table, the counts and the dice come in as arguments."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from app.errors import Problem
from app.table import Backend, Key, PublicModel, Table, Target, Wildcard
from backends.endpoint import State
from backends.ollama.names import full_name

NEAREST = 5
MAX_NAME_CHARS = 256


class Resolved(msgspec.Struct, frozen=True):
    """A model by the name that a client gave. `label`: how the configuration spells it, for metrics (`prefix*`)."""

    name: str
    label: str
    model: PublicModel


def resolve_for(table: Table, key: Key | None, name: str) -> Resolved:
    """The model that this key means by a name; Problem (404) where there is none that it may use."""
    resolved = resolve(table, name) if len(name) <= MAX_NAME_CHARS else None
    # The resolved name decides: a key's pattern may fit a name that only leads to `default_model`.
    if resolved is None or (key is not None and not may_use(key, resolved.name)):
        raise unknown_model(table, key, name)
    return resolved


def unknown_model(table: Table, key: Key | None, name: str, param: str = "model", place: str = "") -> Problem:
    """404 with the nearest names that this key may see; the name itself is not echoed. `param`: the member of the
    request that holds it, `place`: where in that (`models[1]`).
    """
    near = nearest(table, key, name)
    hint = f" Did you mean {' or '.join(repr(n) for n in near[:3])}?" if near else " GET /v1/models lists the names."
    which = f" ('{place}')" if place else ""
    return Problem(404, "model_not_found", f"There is no such model here{which}.{hint}", param=param)


def resolve(table: Table, name: str, *, or_default: bool = True) -> Resolved | None:
    """The model behind a name: itself or an alias, the longest wildcard, `default_model`; None when unknown."""
    exact = table.aliases.get(name, name)
    model = table.models.get(exact)
    if model is not None:
        return Resolved(exact, exact, model)
    for wildcard in sorted(table.wildcards, key=lambda w: -len(w.prefix)):
        part = name.removeprefix(wildcard.prefix) if name.startswith(wildcard.prefix) else ""
        if part and _has(table.backends.get(wildcard.backend), part):
            target = Target(backend=wildcard.backend, model=part)
            behind = PublicModel(
                name=name,
                targets=(target,),
                reasoning=wildcard.reasoning,
                rules=wildcard.rules,
                price=wildcard.price,
            )
            return Resolved(name, f"{wildcard.prefix}*", behind)
    if or_default and table.default_model is not None:
        return resolve(table, table.default_model, or_default=False)
    return None


def as_ollama(table: Table, name: str) -> str:
    """The public name that a client of Ollama means: to it, `m` and `m:latest` are one, and case does not matter."""
    if resolve(table, name, or_default=False) is not None:
        return name
    wanted = name.lower()
    bare = wanted.removesuffix(":latest")
    known = (each for each in (*table.models, *table.aliases) if each.lower() in (wanted, bare, f"{bare}:latest"))
    return next(known, name)


def _has(backend: Backend | None, name: str) -> bool:
    """Whether an engine may have a model of that name. Ollama's `m` is `m:latest`, and case does not matter there."""
    if backend is None:
        return False
    if not backend.is_strict:
        return True
    return full_name(name) in map(full_name, backend.models or ())


class BackendView(Protocol):
    """What a relay knows of the backends at this moment, beyond the table; and chance."""

    def in_flight(self, backend: str) -> int:
        """Requests that hold or wait for that backend."""
        ...

    def is_ejected(self, target: Target) -> bool:
        """Whether it is passed over for what it did to requests, until it has shown that it is well."""
        ...

    def dice(self) -> float:
        """A number from 0 up to 1."""
        ...


class Preference(Protocol):
    """Which of a model's targets that serve, and are not ejected, is to be the first; None: as chance and load say. It
    is asked for each model with several targets when its turn comes, also where none of them serves."""

    def __call__(self, model: PublicModel, serving: Sequence[Target]) -> Target | None: ...


def order(
    table: Table, model: PublicModel, view: BackendView, key: Key | None = None, first: Preference | None = None
) -> Iterable[Target]:
    """Every target that may have the request, best first: the model's own, then those of its fallbacks in turn, less
    those that this key may not use.

    Among a model's own: what serves now, then what can be started, then the rest; by weight (a share of requests), and
    among equal weights the one with the fewest requests in flight. One that is ejected is left out, as long as another
    of the model's own serves and is not. `first` may put another one that serves in front of them.
    """
    if len(model.targets) == 1 and not model.fallbacks:
        return model.targets
    return _all_in_order(table, model, view, key, first)


def _all_in_order(
    table: Table, model: PublicModel, view: BackendView, key: Key | None, first: Preference | None
) -> Iterator[Target]:
    seen: set[tuple[str, str]] = set()
    for chosen in _with_fallbacks(table, model, key):
        for target in _order(table, chosen, view, first):
            if (target.backend, target.model) not in seen:
                seen.add((target.backend, target.model))
                yield target


def _with_fallbacks(table: Table, model: PublicModel, key: Key | None) -> Iterator[PublicModel]:
    """The model, then each of its fallbacks with that one's own behind it; none twice, so a cycle ends.

    One that the key may not use is passed over, and those behind it are tried; another road may still lead to it.
    """
    walked: set[str] = set()
    used: set[str] = set()
    waiting = [(model, True)]
    while waiting:
        chosen, is_open = waiting.pop(0)
        if is_open and chosen.name not in used:
            used.add(chosen.name)
            yield chosen
        if chosen.name in walked:
            continue
        walked.add(chosen.name)
        known = [(name, table.models.get(table.aliases.get(name, name))) for name in chosen.fallbacks]
        waiting[:0] = [
            (each, name in chosen.fallbacks_for_all or may_use(key, each.name))
            for name, each in known
            if each is not None
        ]


def _order(table: Table, model: PublicModel, view: BackendView, first: Preference | None) -> Iterator[Target]:
    targets = model.targets
    if len(targets) == 1:
        yield targets[0]
        return
    ranks: dict[int, list[Target]] = {0: [], 1: [], 2: []}
    for target in targets:
        ranks[_rank(table.backends.get(target.backend))].append(target)
    # Never the last one that serves: where all of them are ejected, none is.
    ranks[0] = [target for target in ranks[0] if not view.is_ejected(target)] or ranks[0]
    if first is not None:
        preferred = first(model, ranks[0])
        if preferred is not None:
            yield preferred
            ranks[0].remove(preferred)
    for rank in ranks.values():
        yield from _by_weight(rank, view)


def _rank(backend: Backend | None) -> int:
    if backend is None:
        return 2
    if backend.state is State.READY and backend.endpoint is not None:
        return 0
    return 1 if backend.can_start else 2


def _by_weight(targets: list[Target], view: BackendView) -> Iterator[Target]:
    left = sorted(targets, key=lambda t: (view.in_flight(t.backend), view.dice()))
    while left:
        point = view.dice() * sum(t.weight for t in left)
        for target in left:
            point -= target.weight
            if point < 0:
                break
        # The dice chose a weight; among targets of that weight the least busy one serves.
        chosen = next(t for t in left if t.weight == target.weight)
        left.remove(chosen)
        yield chosen


def may_use(key: Key | None, name: str) -> bool:
    """Whether a key may use a model; a pattern in the key's list may end in `*`."""
    if key is None or key.models is None:
        return True
    return any(name == p or (p.endswith("*") and name.startswith(p[:-1])) for p in key.models)


def visible(table: Table, key: Key | None) -> dict[str, str]:
    """Public names this key may use → their backend; models behind wildcards under their shortest public name, once."""
    served = {name: model for name, model in table.models.items() if model.targets and may_use(key, name)}
    names = {name: model.targets[0].backend for name, model in served.items()}
    listed = {(t.backend, full_name(t.model)) for model in served.values() for t in model.targets}
    for wildcard in sorted(table.wildcards, key=lambda w: len(w.prefix)):
        for part in _listed(table.backends, wildcard):
            name = f"{wildcard.prefix}{part}"
            if name in table.models or (wildcard.backend, full_name(part)) in listed or not may_use(key, name):
                continue
            if _leads_there(table, name, wildcard):
                listed.add((wildcard.backend, full_name(part)))
                names[name] = wildcard.backend
    return names


def _leads_there(table: Table, name: str, wildcard: Wildcard) -> bool:
    """Whether a request for that name comes to this wildcard, and not to an alias or to a longer one."""
    longer = [w for w in table.wildcards if len(w.prefix) > len(wildcard.prefix) and name.startswith(w.prefix)]
    if name not in table.aliases and not longer:
        return True
    resolved = resolve(table, name, or_default=False)
    return resolved is not None and resolved.label == f"{wildcard.prefix}*"


def _listed(backends: Mapping[str, Backend], wildcard: Wildcard) -> tuple[str, ...]:
    backend = backends.get(wildcard.backend)
    return (backend.models or ()) if backend is not None else ()


def nearest(table: Table, key: Key | None, name: str) -> list[str]:
    """Names like `name` that this key may see, nearest first."""
    names = [*visible(table, key), *(a for a, n in table.aliases.items() if may_use(key, n))]
    return difflib.get_close_matches(name[:256], names, n=NEAREST, cutoff=0.4)
