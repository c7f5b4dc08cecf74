"""What is new in a backend's log since the last look, across the starts of its engine. Pure: answers of
`/admin/backends/NAME/logs` in, lines and remarks out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class LogNews(NamedTuple):
    """A line of the log; or, where `is_remark`, one about it. `life`: the start of the engine that it belongs to."""

    life: int
    text: str
    is_remark: bool = False


class LogFollower:
    """Follows one start of an engine until it has ended, then the next one. `life`: which to ask for next; None while
    there was none yet."""

    def __init__(self) -> None:
        self.life: int | None = None
        self._seen = 0  # whole lines of that life that were shown
        self._is_first = True
        self._has_ended = False

    def take(self, answer: Mapping[str, Any]) -> Iterator[LogNews]:
        """What is new in this answer: of `life`, or, while that is None, of the latest start. Of the first answer it is
        everything."""
        life = answer["life"]
        if life is None:
            return
        if self.life is None:
            self.life = life
        if not self._has_ended:
            yield from self._lines(life, answer)
        ended = next((each for each in answer["lives"] if each["life"] == life), None)
        if ended is None or ended["ended_ago_s"] is None:
            return
        if not self._has_ended:
            if answer["unfinished"]:
                yield LogNews(life, answer["lines"][-1])
            yield LogNews(life, f"start {life} ended: {ended['reason'] or 'it was stopped'}", is_remark=True)
            self._has_ended = True
        later = [each["life"] for each in answer["lives"] if each["life"] > life]
        if later:
            self.life, self._seen, self._has_ended = min(later), 0, False
            yield LogNews(self.life, f"start {self.life}:", is_remark=True)

    def _lines(self, life: int, answer: Mapping[str, Any]) -> Iterator[LogNews]:
        whole = answer["lines"][:-1] if answer["unfinished"] else answer["lines"]
        new = max(0, answer["printed"] - self._seen)
        if new > len(whole) and not self._is_first:
            missed = new - len(whole)
            yield LogNews(life, f"{missed} line{'s' if missed != 1 else ''} came too fast to be kept", is_remark=True)
        for line in whole[len(whole) - min(new, len(whole)) :]:
            yield LogNews(life, line)
        self._seen, self._is_first = answer["printed"], False
