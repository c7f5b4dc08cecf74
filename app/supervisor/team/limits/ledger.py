"""One limit of one key, as one gateway of several knows it: what it and the others have spent and hold (pure).

What a gateway *holds* it may have its relays spend. The store keeps, of every gateway, what it holds and what it has
spent in which slot, each as an absolute amount that only its own gateway writes, so that writing it again changes
nothing. A gateway holds more only after it has seen, while nobody else could change theirs, that all of it together
stays within the limit; what is spent goes from what is held into a slot. So at every moment what has been spent and not
been written yet is covered by what the store says is held.

Without the store for `SILENT_S`, a gateway is *alone*: it lets its relays spend its share of what was not used when it
last knew, and of what ages out of that since. The others see that it is silent, and keep just that share for it.
Times are Unix seconds by the store's clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from math import inf
from typing import Final

from app.supervisor.team.limits.spans import Calendar, CountedFor, WhileItRuns
from app.table import WINDOW_S

# So long relays keep what they are given (app/ipc.py's `Allowance.valid_s`).
VALID_S: Final = 2.0
# What adding up in floating point may be wrong by.
SMALL: Final = 1e-6


class Ledger:
    """`kind`: what it is called in the store. `held`: what this gateway may spend and has not spent; `out`: of it, what
    its relays have; `lingering`: of it, what is spent and still to be recorded by others. `own`: what it has spent, by
    slot; `unsaid`: the slots that the store does not know as they are. `is_beyond`: something was granted without the
    store, and the store does not know it yet. `is_known`: the store has been heard at all.
    `stored_held`: what the store was told last that is held.
    """

    def __init__(self, kind: str, limit: float, span: CountedFor, now: float) -> None:
        self.kind = kind
        self.limit = limit
        self.span = span
        self.held = self.out = self.lingering = 0.0
        self.own: dict[int, float] = {}
        self.unsaid: set[int] = set()
        self.is_beyond = self.is_known = False
        self.others: dict[str, dict[int, float]] = {}
        self.others_held: dict[str, float] = {}
        # Nothing is known yet: as if all of the limit had been used just now.
        self.stored_held = 0.0
        self.recorded: tuple[int, float] = (span.slot(now), limit if isinstance(span, Calendar) else 0.0)
        self.unknown: dict[int, float] = {span.slot(now): limit} if span.has_slots else {}
        self.known_at = now
        self._known_held = 0.0
        # What is used here, what running requests give back, and what others draw.
        self._used, self._freed, self._drawn = _Meter(), _Meter(), _Meter()
        self._news = self._unseen = 0.0

    def __repr__(self) -> str:
        return f"<Ledger {self.kind} limit={self.limit:g} held={self.held:g} out={self.out:g}>"

    # -- what happens here

    @property
    def pool(self) -> float:
        """What relays can be given at once."""
        # The limit may have become less than is held.
        return min(self.held, self.limit) - self.out - self.lingering

    def hand_out(self, amount: float) -> None:
        """A relay has it from now on."""
        self.out += amount

    def take_back(self, amount: float) -> None:
        """A relay has not spent it and will not."""
        self.out -= amount

    def spend(self, amount: float, now: float) -> None:
        """Relays have spent so much of what they have."""
        self._used.add(amount, now)
        if isinstance(self.span, WhileItRuns):
            return  # it is `out` until it comes back
        self.out -= amount
        if self.span.has_slots:
            self.held -= amount
            self._add(self.span.slot(now), amount)
        else:
            self.lingering += amount  # until `linger` says how it goes on

    def linger(self, amount: float) -> None:
        """So much is spent, and its records are not there yet."""
        self.held += amount - self.lingering
        self.lingering = amount

    def settle(self, slot: int, more: float, now: float) -> None:
        """What was spent from what was granted in that slot came to so much more (negative: less) in the end."""
        if not self.span.has_slots:
            return
        if more < 0:
            self._freed.add(-more, now)
        newest = self.span.slot(now)
        slot = min(max(slot, newest - int(2 * WINDOW_S)), newest)
        if more >= 0:
            self._add(slot, more)
        while more < -SMALL and slot <= newest:  # spent at some time after it was granted
            there = min(self.own.get(slot, 0.0), -more)
            if there > 0:
                self._add(slot, -there)
                more += there
            slot += 1

    def _add(self, slot: int, amount: float) -> None:
        self.own[slot] = max(0.0, self.own.get(slot, 0.0) + amount)
        self.unsaid.add(slot)

    def forget(self, now: float) -> None:
        """Drop what counts no longer."""
        for slots in (self.own, self.unknown, *self.others.values()):
            for slot in [slot for slot in slots if self.span.ends(slot) <= now]:
                del slots[slot]
        if self.span.has_slots:
            self._redate(now)
        self.unsaid &= self.own.keys()

    def _redate(self, now: float) -> None:
        """What lies further ahead than a minute was spent before the store's clock was set back: as of now, so that it
        does not count for as long as the clock was ahead."""
        newest = self.span.slot(now)
        latest = self.span.slot(now + WINDOW_S)
        for slots in (self.own, self.unknown, *self.others.values()):
            for slot in [slot for slot, amount in slots.items() if slot > latest and amount > 0]:
                slots[newest] = slots.get(newest, 0.0) + slots[slot]
                slots[slot] = 0.0
                if slots is self.own:
                    self.unsaid |= {slot, newest}

    def ahead(self, now: float) -> float:
        """How much more than is needed now is worth having: about a second's use; nothing where nobody asks."""
        if self._used.idle_s(now) > VALID_S:
            return 0.0
        if isinstance(self.span, WhileItRuns):
            return self.span.slice_of(self.limit)
        return max(self.span.slice_of(self.limit), self._used.of_a_second(now))

    def rest(self) -> None:
        """As if nobody had asked for anything for long."""
        self._used = _Meter()

    # -- what is known

    def spent(self, now: float, until: float = inf) -> float:
        """What counts at `now` of what all have spent, as far as is known here; `until`: before that time."""
        ends, last = self.span.ends, self.span.slot(until) if until < inf else inf
        total = self.recorded[1] if not self.span.has_slots and ends(self.recorded[0]) > now else 0.0
        for slots in (self.own, self.unknown, *self.others.values()):
            for slot, amount in slots.items():
                if slot <= last and ends(slot) > now:
                    total += amount
        return total

    def used(self, now: float) -> float:
        """What is used of it, as far as is known: spent, or held where only that counts."""
        if isinstance(self.span, WhileItRuns):
            return self.held + sum(self.others_held.values())
        return self.spent(now) + self.lingering

    def room(self, now: float, gateways: int, silent: Iterable[tuple[str, float]] = ()) -> float:
        """How much this gateway may hold in all. `gateways`: how many there are; `silent`: those that may be alone, as
        (id, since when)."""
        kept = sum(self._kept_for(gateway, since, now, gateways) for gateway, since in silent)
        return self.limit - self.spent(now) - sum(self.others_held.values()) - kept

    def _kept_for(self, gateway: str, since: float, now: float, gateways: int) -> float:
        if isinstance(self.span, WhileItRuns):
            return max(0.0, _places(self.limit, gateways) - self.others_held.get(gateway, 0.0))
        return max(0.0, self.limit - self.spent(now, since)) / gateways

    def lone_room(self, now: float, gateways: int) -> float:
        """How much more this gateway may hold while it is alone."""
        if isinstance(self.span, WhileItRuns):
            return max(0.0, _places(self.limit, gateways) - self.held)
        counts_held = not self.span.has_slots or now < self.known_at + WINDOW_S + VALID_S
        held_then = self._known_held if counts_held else 0.0
        before = self.spent(now, self.known_at) + held_then
        if counts_held:
            before += sum(self.others_held.values()) + self._unseen
        since = self.spent(now) - self.spent(now, self.known_at) + self.held - held_then
        return max(0.0, (self.limit - before) / gateways - since)

    def is_spent_for(self, need: float, now: float, gateways: int, silent: Sequence[tuple[str, float]]) -> bool:
        """Whether the store need not be asked: there cannot be as much as is needed."""
        return self.pool + SMALL < need and self.room(now, gateways, silent) - self.held + self.pool + SMALL < need

    def wait_s(
        self,
        need: float,
        now: float,
        gateways: int,
        silent: Sequence[tuple[str, float]] | None,
        earliest: float = 0.0,
    ) -> float:
        """In how many seconds there will be as much as is needed, if nobody else takes it; not before `earliest`.
        `silent` None: alone. Infinite where the limit is smaller than that."""
        if need > self.limit + SMALL:
            return inf
        if isinstance(self.span, WhileItRuns):
            return max(1.0, earliest - now)
        if not self.span.has_slots:
            # What is held for requests that run, here and elsewhere, comes back but for what they really use.
            if self.limit - self.spent(now) + SMALL >= need:
                return max(VALID_S, earliest - now)
            return max(1.0, self.span.ends(self.span.slot(now)) - now)

        def has_enough(at: float) -> bool:
            more = self.lone_room(at, gateways) if silent is None else self.room(at, gateways, silent) - self.held
            return self.pool + max(0.0, more) + SMALL >= need

        times = {self.span.ends(slot) for slots in (self.own, self.unknown, *self.others.values()) for slot in slots}
        times |= {earliest, self.known_at + WINDOW_S + VALID_S}
        later = sorted(time for time in times if time > now and time >= earliest)
        index = bisect_left(later, True, key=has_enough)
        wait = later[index] - now if index < len(later) else VALID_S
        # Requests that run give back what they do not use, long before it counts no longer.
        is_freed = self.kind == "tokens" and self._freed.idle_s(now) <= VALID_S
        freed = self._freed.of_a_second(now) if is_freed else 0.0
        return min(wait, max(1.0, earliest - now, need / freed)) if freed > 0 else wait

    def reset_s(self, now: float) -> float:
        """In how many seconds all of the limit is there again, if nothing more is spent."""
        slots = (self.own, self.unknown, *self.others.values())
        ends = [self.span.ends(slot) for each in slots for slot, amount in each.items() if amount > SMALL]
        return max(0.0, max(ends, default=now) - now)

    def hear(self, gateway: str, slot: int, amount: float, now: float) -> None:
        """What another gateway has spent in a slot, by what the store says now."""
        slots = self.others.setdefault(gateway, {})
        if (less := slots.get(slot, 0.0) - amount) > 0:
            self._freed.add(less, now)
        self._news -= less
        slots[slot] = amount

    def hear_held(self, gateway: str, amount: float) -> None:
        """What another gateway holds, by what the store says now."""
        self._news += amount - self.others_held.get(gateway, 0.0)
        self.others_held[gateway] = amount

    # -- what is agreed with the store

    @property
    def is_untold(self) -> bool:
        """Whether the store does not know what is spent and held here as it is."""
        return bool(self.unsaid) or self.is_beyond or abs(self.held - self.stored_held) > SMALL

    def wish(self, now: float, needs: float, is_short: bool, gateways: int, room: float) -> float:
        """How much to hold. `needs`: of those that wait and fit in `room`; `is_short`: there are some that do not."""
        cannot_change = self.out + self.lingering
        left = max(0.0, room - cannot_change - needs)
        more = 0.0 if is_short else min(self.ahead(now), left / (2 * gateways) if gateways > 1 else left)
        if isinstance(self.span, WhileItRuns):
            more = float(int(more))
        return max(cannot_change, min(cannot_change + needs + more, room))

    def recall(self, slot: int, amount: float) -> None:
        """An earlier life of this gateway had spent so much in that slot, by what the store says."""
        self._add(slot, amount)

    def heard(self, now: float) -> None:
        """We know of the others what the store knows. Should this have been the last time: until the store failed they
        will have drawn as much more as in a second before."""
        if self._news > 0 and self.is_known:
            self._drawn.add(self._news, now)
        self._news = 0.0
        self._unseen = self._drawn.of_a_second(now) if self._drawn.idle_s(now) <= 1 else 0.0
        self.known_at, self._known_held = now, self.held

    def agreed(self, now: float) -> None:
        """And the store knows what is held and spent here."""
        self.heard(now)
        self.unknown.clear()
        self.is_beyond, self.is_known = False, True


class _Meter:
    """How much of something there is in a second."""

    def __init__(self) -> None:
        self._second, self._this, self._last = 0, 0.0, 0.0

    def add(self, amount: float, now: float) -> None:
        second = int(now)
        if second != self._second:
            self._last = self._this if second == self._second + 1 else 0.0
            self._second, self._this = second, 0.0
        self._this += amount

    def idle_s(self, now: float) -> int:
        """Seconds without any of it; where the clock was set back, many."""
        return abs(int(now) - self._second)

    def of_a_second(self, now: float) -> float:
        """In this one or the one before, whichever had more."""
        return max(self._this, self._last if self.idle_s(now) == 0 else 0.0)


def _places(limit: float, gateways: int) -> float:
    """The share of one of several gateways in what may run at the same time: at least one."""
    return max(1.0, limit // gateways)
