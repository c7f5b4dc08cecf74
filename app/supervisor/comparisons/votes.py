"""Votes about blind comparisons that this gateway has to itself: one line each in a file of the state folder, where the
store does not have them yet. No question and no answer is kept.

What a blind comparison has hidden stays in memory until its vote is kept, or a day is over.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from app.errors import Problem, bad_request
from app.ipc import SealedComparison

OPEN_S: Final = 86_400.0  # so long a vote may come
MOST_SEALED: Final = 10_000  # the oldest go first
Winner = int | Literal["tie", "all_bad"]


class CastVote(msgspec.Struct, frozen=True):
    """One vote. `models`: in the order in which their answers were shown; `winner`: a place among them, `tie`, or
    `all_bad`. `time`: Unix seconds. `key`: the name of the key that asked, None where no key is configured.
    """

    id: str
    time: int
    models: list[str]
    winner: Winner
    pair: str | None = None
    key: str | None = None


_lines = msgspec.json.Decoder(CastVote)


class VoteStore:
    """The votes in `path`, and the blind comparisons that wait for theirs. `now`: Unix seconds.

    `cast` and `votes` block; all methods may be called from several threads.
    """

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._sealed: dict[str, tuple[float, SealedComparison]] = {}
        self._known: list[CastVote] | None = None
        self._opened: set[str] = set()

    def __repr__(self) -> str:
        return f"<VoteStore {self._path} waiting={len(self._sealed)}>"

    def seal(self, comparison: SealedComparison) -> None:
        """Wait for a vote about it."""
        with self._lock:
            oldest = self._now() - OPEN_S
            while self._sealed:
                first = next(iter(self._sealed))
                if self._sealed[first][0] >= oldest and len(self._sealed) < MOST_SEALED:
                    break
                del self._sealed[first]
            self._sealed[comparison.id] = (self._now(), comparison)

    def votes(self) -> list[CastVote]:
        """All of them, oldest first. Problem (503) where the file cannot be read."""
        with self._lock:
            return list(self._read())

    def cast(self, id_: str, winner: Any, key: str | None) -> SealedComparison:
        """Store a vote, and return what its comparison has hidden.

        Problem: 404 where no comparison of this id waits for a vote of this key, 409 where it has had one, 400 for a
        winner that it does not have, 503 where the disk does not take it; the comparison waits on then.
        """
        with self._lock:
            known = self._read()
            if id_ in self._opened:
                raise already_voted()
            comparison = self._waiting(id_)
            vote = vote_about(comparison, winner, key, self._now())
            assert comparison is not None  # else there is no vote
            self._append(vote)
            known.append(vote)
            self._opened.add(id_)
            del self._sealed[id_]
            return comparison

    def waiting(self, id_: str) -> SealedComparison | None:
        """What a comparison hides that waits for its vote here."""
        with self._lock:
            return self._waiting(id_)

    def has_vote(self, id_: str) -> bool:
        """Whether the file has a vote about it."""
        with self._lock:
            self._read()
            return id_ in self._opened

    def opened(self, id_: str) -> None:
        """Its vote is kept elsewhere: it waits no more."""
        with self._lock:
            self._sealed.pop(id_, None)

    def set_aside(self, taken: int) -> bool:
        """The first `taken` votes are kept elsewhere. Once those are all, their file is renamed, and True comes back;
        Problem (503) where the disk does not allow that.
        """
        with self._lock:
            if len(self._read()) != taken:
                return False
            try:
                aside = self._path.with_suffix(".stored.jsonl")
                if aside.exists():
                    with aside.open("ab") as file:
                        file.write(self._path.read_bytes())
                        file.flush()
                        os.fsync(file.fileno())
                    self._path.unlink(missing_ok=True)
                elif taken:
                    self._path.replace(aside)
            except OSError as exc:
                raise _unusable("written", self._path, exc) from exc
            self._known = []
            self._opened = set()
            return True

    def _waiting(self, id_: str) -> SealedComparison | None:
        sealed_at, comparison = self._sealed.get(id_, (0.0, None))
        return comparison if self._now() - sealed_at <= OPEN_S else None

    def _read(self) -> list[CastVote]:
        if self._known is None:
            try:
                data = self._path.read_bytes()
            except FileNotFoundError:
                data = b""
            except OSError as exc:
                raise _unusable("read", self._path, exc) from exc
            lines = data[: data.rfind(b"\n") + 1].splitlines()
            self._known = [vote for line in lines if (vote := _vote(line)) is not None]
            self._opened = {vote.id for vote in self._known}
        return self._known

    def _append(self, vote: CastVote) -> None:
        """Add a whole line behind the last whole one, or nothing."""
        line = msgspec.json.encode(vote) + b"\n"
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as exc:
            raise _unusable("written", self._path, exc) from exc
        try:
            end = _end_of_lines(descriptor)
            try:
                os.ftruncate(descriptor, end)
                if os.pwrite(descriptor, line, end) < len(line):
                    raise OSError("the disk is full")
                os.fsync(descriptor)
            except OSError as exc:
                os.ftruncate(descriptor, end)
                raise _unusable("written", self._path, exc) from exc
        finally:
            os.close(descriptor)


def _vote(line: bytes) -> CastVote | None:
    """None for a line that is not ours: the other votes count nevertheless."""
    try:
        return _lines.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def already_voted() -> Problem:
    """The refusal of a second vote."""
    return Problem(409, "already_voted", "This comparison has had its vote.", param="id")


def vote_about(comparison: SealedComparison | None, winner: Any, key: str | None, now: float) -> CastVote:
    """The vote of this key. Problem: 404 where no comparison waits for it, 400 for a winner that it does not have."""
    if comparison is None or comparison.key != key:
        message = "No blind comparison with this id waits for your vote: it takes one, within a day."
        raise Problem(404, "comparison_not_found", message, param="id")
    return CastVote(comparison.id, int(now), comparison.models, _checked(winner, comparison), comparison.pair, key)


def _checked(winner: Any, comparison: SealedComparison) -> Winner:
    if winner in ("tie", "all_bad"):
        word: Literal["tie", "all_bad"] = winner
        return word
    most = len(comparison.models) - 1
    if isinstance(winner, int) and not isinstance(winner, bool) and 0 <= winner <= most:
        return winner
    message = f'\'winner\' must be the index of an answer (0 to {most}), "tie" or "all_bad".'
    raise bad_request(message, param="winner", code="invalid_value")


def _end_of_lines(descriptor: int) -> int:
    """The size of the file without a last line that was cut."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        begin = max(0, end - 65_536)
        at = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if at >= 0:
            return begin + at + 1
        end = begin
    return 0


def _unusable(what: str, path: Path, exc: OSError) -> Problem:
    message = f"The votes cannot be {what} ({path.name} of the state folder: {exc.strerror or exc}); vote again later."
    return Problem(503, "votes_unusable", message)
