"""Coroutines that run without a task for as long as they wait for nothing but the engine's response.

A task costs a request more than parsing it does (docs/decisions.md, "The straight road"): one is made only for a
coroutine that waits for something else. What it does is the same either way, since it is the same coroutine.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from backends.http import exchange
from backends.http.exchange import Exchange


async def in_task() -> None:
    """From here on the caller runs in a task: `asyncio.timeout` needs one. To be awaited before that."""
    if exchange.is_carried:
        await asyncio.sleep(0)


class Carrier:
    """Runs one coroutine, and calls `done` when it is over; an exception that leaves it goes to the loop's handler, and
    `has_failed` says so: who brings the response, or looks at deadlines, has nothing to do with it.

    `start` runs it until it waits for the first time, in whatever callback that is called from.
    """

    __slots__ = ("_coroutine", "_done", "_is_over", "_is_running", "_loop", "_must_cancel", "_task", "has_failed")

    def __init__(self, coroutine: Coroutine[Any, Any, None], done: Callable[[Carrier], None]) -> None:
        self._coroutine = coroutine
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._is_running = self._is_over = self._must_cancel = self.has_failed = False

    def __repr__(self) -> str:
        return f"<Carrier {'task' if self._task is not None else 'over' if self._is_over else 'carried'}>"

    def start(self) -> None:
        """Run it until it waits."""
        self._run(None)

    def cancel(self, msg: object = None) -> None:
        """Have it end, as a task's `cancel` does: CancelledError is raised where it waits."""
        if self._task is not None:
            self._cancel_task(self._task, msg)
        elif self._is_running:
            self._must_cancel = True
        elif asyncio.current_task() is not None:  # as in `_resume`
            self._loop.call_soon(self.cancel, msg)
        else:
            self._run(asyncio.CancelledError())

    def _cancel_task(self, task: asyncio.Task[None], msg: object = None) -> None:
        """Behind its first step: before that, it would end without the coroutine's being told."""
        self._loop.call_soon(task.cancel, msg)

    def _resume(self, error: BaseException | None) -> None:
        """The response is there, or has failed."""
        if error is not None and asyncio.current_task() is not None:
            # Somebody's task has found out that the engine is gone: what we run must not take itself for that one.
            self._loop.call_soon(self._run, error)
        else:
            self._run(error)

    def _run(self, error: BaseException | None) -> None:
        if self._is_over or self._task is not None:
            return
        self._is_running = True
        outside, exchange.is_carried = exchange.is_carried, True
        try:
            waits = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except (StopIteration, asyncio.CancelledError):
            self._over()
            return
        except Exception as exc:  # noqa: BLE001  # told to the loop's handler
            self._over(exc)
            return
        except BaseException:
            self._over()
            raise
        finally:
            exchange.is_carried = outside
        self._is_running = False
        if type(waits) is Exchange:
            waits.follow(self._resume)
            if self._must_cancel:
                self._must_cancel = False
                self._run(asyncio.CancelledError())
        else:
            self._task = self._loop.create_task(_in_task(self._coroutine, waits))
            self._task.add_done_callback(self._task_done)
            if self._must_cancel:
                self._cancel_task(self._task)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._over(None if task.cancelled() else task.exception())

    def _over(self, error: BaseException | None = None) -> None:
        self._is_over = True
        self._is_running = False
        if error is not None:
            self.has_failed = True
            self._loop.call_exception_handler({"message": "a carried coroutine has failed", "exception": error})
        self._done(self)


async def _in_task(coroutine: Coroutine[Any, Any, None], waits: Any) -> None:
    """The rest of a coroutine that waits for this."""
    await _rest(coroutine, waits)


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, None], waits: Any) -> Generator[Any, Any, None]:
    while True:
        try:
            yield waits
        except BaseException as exc:  # noqa: BLE001  # whatever ends the wait is the coroutine's own
            step, given = coroutine.throw, exc
        else:
            step, given = coroutine.send, None  # type: ignore[assignment]
        try:
            waits = step(given)
        except StopIteration:
            return
