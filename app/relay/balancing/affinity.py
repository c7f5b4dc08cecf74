"""Places requests where their prompt, or their session, is already known: a first placement by hash, on which all
relays and gateways agree without talking, and what this relay has seen since, which only corrects it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from app.relay.balancing import rendezvous
from app.relay.balancing.beginning import Beginning, beginning, opening
from app.relay.planning.plan import WRITING, RequestPlan
from app.routing import BackendView, order
from app.table import Backend, PublicModel, RouteBy, Table, Target

PlacedBy = Literal["least_busy", "prefix", "session", "hash", "overflow"]

SESSION_HEADER: Final = "x-session-id"
# Half of them are the newest, and when these are so many, the older half is forgotten. 250 bytes each.
MAX_REMEMBERED: Final = 32_768
# More engines than this seldom hold the same beginning; what is not remembered is computed once more.
MAX_HOLDERS: Final = 16
# Of conversations, the engine that the hash says. When these are so many, all are forgotten.
MAX_PLACES: Final = 8192

# What a beginning is worth, in requests that its engine may have in flight beyond the least busy one.
# A conversation: another engine would have to compute it at each change to and fro.
STAYS: Final = 3.0
OWN_BYTES: Final = 2048  # one request more for so much of it
MOST_OWN: Final = 8.0
# What many conversations share: once another engine has computed it, too, it has it for all that follow.
SHARED_BYTES: Final = 8192
MOST_SHARED: Final = 2.0
# That other relays, which have not seen this one, will look for its next turn where the hash says.
AGREED: Final = 1.0


class Contender(NamedTuple):
    """One engine that may have the request. `busy`: its requests in flight, for its weight. `held`: how many bytes of
    the prompt it has computed before. `continues`: these are a conversation's, and none has more of them. `is_agreed`:
    the hash says so.
    """

    busy: float
    held: int = 0
    continues: bool = False
    is_agreed: bool = False

    def worth(self) -> float:
        """What speaks for it, in requests."""
        own = min(MOST_OWN, STAYS + self.held / OWN_BYTES) if self.continues else 0.0
        return max(own, min(MOST_SHARED, self.held / SHARED_BYTES)) + (AGREED if self.is_agreed else 0.0)


def choose(candidates: Sequence[Contender]) -> tuple[int, PlacedBy]:
    """The index of the one that gets the request, and what decided: `overflow` where the one that holds most of it, or
    on which all agree, is busier than that is worth."""
    least = min(candidate.busy for candidate in candidates)
    # The more there is to do, the less one request more matters.
    unit = 1.0 + least / 4.0
    worths = [each.worth() for each in candidates]
    # Of two that come to the same, the one for which more speaks.
    costs = [((each.busy - least) / unit - worth, -worth) for each, worth in zip(candidates, worths, strict=True)]
    index = costs.index(min(costs))
    chosen = candidates[index]
    if any(each.continues for each in candidates):
        return index, "prefix" if chosen.continues else "overflow"
    if chosen.is_agreed:
        return index, "hash"
    most = max(each.held for each in candidates)
    return index, "prefix" if chosen.held == most > 0 else "overflow"


# One start of an engine: a backend, and its generation. Another start has an empty cache.
Holder = tuple[str, int]


class BlockMemory:
    """Which engines have computed a block, the latest at the end: about the last MAX_REMEMBERED blocks of a relay."""

    def __init__(self, most: int = MAX_REMEMBERED) -> None:
        self._half = most // 2
        self._new: dict[int, tuple[Holder, ...]] = {}
        self._old: dict[int, tuple[Holder, ...]] = {}
        self._sets: dict[tuple[Holder, ...], tuple[Holder, ...]] = {}  # so that equal ones are one

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def holders(self, block: int) -> tuple[Holder, ...]:
        """Those that have it; none where that is not known, or not any more."""
        return self._new.get(block) or self._old.get(block) or ()

    def note(self, blocks: Iterable[int], holder: Holder) -> None:
        """These are computed by it now."""
        new, old = self._new, self._old
        for block in blocks:
            known = new.get(block) or old.pop(block, ())
            if not known or known[-1] != holder:
                # Of another start of the same engine nothing is left.
                others = [each for each in known if each[0] != holder[0]]
                made = (*others[1 - MAX_HOLDERS :], holder)
                known = self._sets.setdefault(made, made)
            new[block] = known
        if len(new) >= self._half:
            self._new, self._old, self._sets = {}, new, {}


class Affinity:
    """Of one relay. `placed` is told of each placement among several engines: the model's public name, and what decided
    it."""

    def __init__(self, placed: Callable[[str, PlacedBy], None]) -> None:
        self.placed = placed
        self.memory = BlockMemory()
        self._places: dict[tuple[int, ...], int] = {}
        self._places_of: Table | None = None

    def order(self, table: Table, plan: RequestPlan, view: BackendView, headers: Mapping[str, str]) -> Iterable[Target]:
        """Every target that may have the request, best first, as `app.routing.order` says, but that the first of a
        model's own is the one that knows the request best. Each that is taken from here counts as knowing it from then
        on. `headers`: the request's, by lower-case name."""
        model = plan.resolved.model
        if len(model.targets) == 1 and not model.fallbacks:
            return model.targets
        return self._in_order(table, plan, view, headers)

    def _in_order(
        self, table: Table, plan: RequestPlan, view: BackendView, headers: Mapping[str, str]
    ) -> Iterator[Target]:
        if table is not self._places_of:
            self._places_of, self._places = table, {}
        placing = _Placing(self, table.backends, plan, view, headers, is_alone=table.is_alone)
        for target in order(table, plan.resolved.model, view, plan.key, placing.first):
            placing.goes_to(target)
            yield target

    def place(self, key: tuple[int, ...], find: Callable[[], int]) -> int:
        """What `find` says, which is asked once for each key while the table stays as it is."""
        known = self._places.get(key)
        if known is None:
            if len(self._places) >= MAX_PLACES:
                self._places.clear()
            known = self._places[key] = find()
        return known


class _Placing:
    """Of one request, for one model after the other."""

    def __init__(
        self,
        affinity: Affinity,
        backends: Mapping[str, Backend],
        plan: RequestPlan,
        view: BackendView,
        headers: Mapping[str, str],
        *,
        is_alone: bool,
    ) -> None:
        self._affinity = affinity
        self._memory = affinity.memory
        self._backends = backends
        self._plan = plan
        self._view = view
        self._headers = headers
        self._salt = plan.key.sha256 if plan.key is not None else ""
        self._is_alone = is_alone
        self._targets: tuple[Target, ...] = ()
        self._blocks: list[int] = []

    def first(self, model: PublicModel, serving: Sequence[Target]) -> Target | None:
        """Which of a model's targets that serve is to be the first; None: the least busy one."""
        self._targets, self._blocks = model.targets, []
        chosen, by = self._by_rule(model.route, model.name, serving)
        if len(serving) > 1:
            self._affinity.placed(model.name, by)
        return chosen

    def goes_to(self, target: Target) -> None:
        """It is tried there now."""
        if self._blocks and target in self._targets:
            generation = self._generation(target.backend)
            if generation:
                self._memory.note(self._blocks, (target.backend, generation))

    def _by_rule(self, route: RouteBy, name: str, serving: Sequence[Target]) -> tuple[Target | None, PlacedBy]:
        if route == "session":
            session = self._session()
            if session is not None:
                return self._of_session(name, session, serving), "session"
        elif route == "prefix" and self._plan.operation.name in WRITING:
            # A hit can be timed: nobody finds the place of what another key has sent.
            began = beginning(self._plan.parameters, f"{name}\0{self._salt}")
            if began is not None:
                return self._of_prompt(began, serving)
        return None, "least_busy"

    # -- sessions

    def _session(self) -> bytes | None:
        """What the client calls its session: its header, or its `user`."""
        given = self._headers.get(SESSION_HEADER)
        if given:
            return given.encode()
        user = bytes(self._plan.parameters.user)
        return user if user not in (b"null", b'""') else None

    def _of_session(self, name: str, session: bytes, serving: Sequence[Target]) -> Target | None:
        block = hash((name, self._salt, session))
        self._blocks = [block]
        if not serving:
            return None
        if self._is_alone:
            known = {holder[0] for holder in self._memory.holders(block)[-1:]}
            stays = next((target for target in serving if target.backend in known), None)
            if stays is not None:
                return stays
        # Others do not know what moved here, so it goes back to where they send it.
        return serving[self._agreed(session, serving)]

    # -- prompts

    def _of_prompt(self, began: Beginning, serving: Sequence[Target]) -> tuple[Target | None, PlacedBy]:
        self._blocks = began.blocks
        if not serving:
            return None, "least_busy"
        # As nearly always, without a look at the others: it stays where it is.
        stays = self._latest(began, serving)
        if (
            stays is not None
            and self._view.in_flight(stays.backend) <= STAYS
            and (self._is_alone or serving[self._place(began, serving)] is stays)
        ):
            return stays, "prefix"
        mean = sum(target.weight for target in serving) / len(serving)
        busy = [self._view.in_flight(target.backend) * mean / target.weight for target in serving]
        held, continues = self._held(began, serving)
        agreed = self._place(began, serving)
        if not self._is_alone and began.goes_on:
            # Whoever else has had its earlier turns has sent them there.
            held[agreed] = max(*held, began.ends[-2])
            continues = [*continues, agreed]
        candidates = [
            Contender(busy[index], held[index], index in continues, index == agreed) for index in range(len(serving))
        ]
        index, by = choose(candidates)
        return serving[index], by

    def _latest(self, began: Beginning, serving: Sequence[Target]) -> Target | None:
        """Where the latest turn of a conversation that goes on was computed, if that one serves."""
        for block in reversed(began.blocks[began.own :]):
            known = self._memory.holders(block)
            if known:
                backend, generation = known[-1]
                for target in serving:
                    if target.backend == backend and self._generation(backend) == generation:
                        return target
                return None
        return None

    def _generation(self, backend: str) -> int:
        row = self._backends.get(backend)
        return row.endpoint.generation if row is not None and row.endpoint is not None else 0

    def _held(self, began: Beginning, serving: Sequence[Target]) -> tuple[list[int], list[int]]:
        """How many bytes each target holds, and the indices of those that hold most of a conversation that goes on."""
        starts = {(target.backend, self._generation(target.backend)): at for at, target in enumerate(serving)}
        held = [0] * len(serving)
        continues: list[int] = []
        for at in range(len(began.blocks) - 1, -1, -1):
            known = self._memory.holders(began.blocks[at])
            deepest = [index for holder in known if (index := starts.pop(holder, -1)) >= 0]
            for index in deepest:
                held[index] = began.ends[at]
            if deepest and at >= began.own and not continues:
                continues = deepest
            if not starts:
                break
        return held, continues

    def _place(self, began: Beginning, serving: Sequence[Target]) -> int:
        """The index of the one where the hash says that a conversation belongs."""
        if began.own >= len(began.blocks):
            return self._agreed(opening(began), serving)
        key = (began.blocks[began.own], *(id(target) for target in serving))
        return self._affinity.place(key, lambda: self._agreed(opening(began), serving))

    def _agreed(self, what: bytes, serving: Sequence[Target]) -> int:
        """The index of the one that the hash says, in every relay and gateway."""
        placed = rendezvous.seed(self._salt, what)
        return rendezvous.winner(placed, [(self._name(target.backend), target.weight) for target in serving])

    def _name(self, backend: str) -> str:
        """What several gateways call the same engine: of somebody else's the address, as its number may differ."""
        row = self._backends.get(backend)
        endpoint = row.endpoint if row is not None else None
        return backend if endpoint is None or endpoint.is_ours else f"{endpoint.address} {endpoint.dial}"
