"""`modelport top`: the running gateway, live."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.admin_client import call, socket_of
from app.cli.options import JsonOption, StateOption, print_json, warn
from app.cli.tables import show

if TYPE_CHECKING:
    from app.cli.top_figures import Look, Overview

WINDOW_S: Final = 10.0  # over which rates are shown: tokens are counted when their answer ends
_ANSWER_S: Final = 5.0
_QUIT: Final = frozenset(b"qQ\x03\x04")  # Ctrl-C and Ctrl-D, where they come as keys
_KEY_S: Final = 0.1


class NoAnswer(Exception):
    """The gateway gave none; the message says why."""


def top(
    interval: Annotated[float, typer.Option(min=0.2, max=60.0, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, print it once and end.")] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the running gateway live: models, backends, requests, tokens per second, GPUs. q or Ctrl-C ends it.

    Where the output is no terminal, it looks twice and prints once, as with --once.
    """
    if once or as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        view = _twice(state, interval)
        if as_json:
            print_json(dataclasses.asdict(view))
        else:
            _print(view)
        return
    call("GET", "/admin/status", state, timeout_s=_ANSWER_S)  # ends the command where no gateway runs
    _live(socket_of(state), interval)


def _twice(state: Path | None, interval: float) -> Overview:
    from app.cli.top_figures import look, overview

    looks: list[Look] = []
    for wait_s in (interval, 0.0):
        status = call("GET", "/admin/status", state, timeout_s=_ANSWER_S)
        try:
            metrics = _asked(socket_of(state), "/metrics").text
        except NoAnswer as exc:
            warn(f"The gateway's figures are not to be had: {exc}.")
            metrics = ""
        looks.append(look(time.monotonic(), status, metrics))
        time.sleep(wait_s)
    return overview(looks[1], looks[0])


def _print(view: Overview) -> None:
    from app.cli.top_screen import grids, title

    typer.echo(title(view, 10_000))
    for grid in grids(view):
        typer.echo()
        show([column.name for column in grid.columns], grid.rows)


def _asked(socket: Path, path: str) -> Any:
    """The gateway's response; NoAnswer where there is none, or it refuses."""
    import httpx

    try:
        transport = httpx.HTTPTransport(uds=str(socket))
        with httpx.Client(transport=transport, base_url="http://gateway", timeout=_ANSWER_S) as client:
            return client.get(path).raise_for_status()
    except (httpx.ConnectError, FileNotFoundError) as exc:
        raise NoAnswer("no gateway is running with this state folder") from exc
    except httpx.TimeoutException as exc:
        raise NoAnswer(f"it did not answer within {_ANSWER_S:.0f} s") from exc
    except httpx.HTTPError as exc:
        raise NoAnswer(f"it gave no valid answer ({type(exc).__name__})") from exc


def _live(socket: Path, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from app.cli.top_figures import overview
    from app.cli.top_screen import screen

    console = Console(highlight=False)
    news: queue.SimpleQueue[Look | str] = queue.SimpleQueue()
    # A thread of its own, which ends with the process: keys are heard while the gateway is asked.
    threading.Thread(target=_look_again_and_again, args=(socket, interval, news), daemon=True).start()
    looks: deque[Look] = deque()
    view: Overview | None = None
    trouble: str | None = None
    drawn: tuple[int, int] | None = None
    with keys_read() as is_ended, Live(console=console, screen=True, auto_refresh=False) as live:
        while not is_ended(_KEY_S):
            with contextlib.suppress(queue.Empty):
                while True:
                    seen = news.get_nowait()
                    drawn = None
                    if isinstance(seen, str):
                        trouble = f"The gateway is not there: {seen}. Waiting for it …"
                        looks.clear()
                        continue
                    trouble = None
                    looks.append(seen)
                    while looks[-1].at - looks[1 if len(looks) > 1 else 0].at >= WINDOW_S:
                        looks.popleft()
                    view = overview(seen, looks[0] if len(looks) > 1 else None)
            size = console.size
            if drawn != (size.width, size.height):
                live.update(screen(view, trouble, size.width, size.height), refresh=True)
                drawn = (size.width, size.height)


def _look_again_and_again(socket: Path, interval: float, news: queue.SimpleQueue[Look | str]) -> None:
    """A look each `interval` seconds, or why there is none."""
    from app.cli.top_figures import look

    while True:
        try:
            status = _asked(socket, "/admin/status").json()
            news.put(look(time.monotonic(), status, _asked(socket, "/metrics").text))
        except (NoAnswer, ValueError, KeyError, TypeError) as exc:
            news.put(str(exc))
        time.sleep(interval)


@contextlib.contextmanager
def keys_read() -> Iterator[Callable[[float], bool]]:
    """Inside, keys come one by one and are not shown. Gives a function that waits so many seconds, and says whether q,
    Ctrl-C or a signal asked for the end. The terminal is what it was afterwards.
    """
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    ended: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: ended.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }

    def is_ended(seconds: float) -> bool:
        # A signal does not end the wait, so it has to be short.
        if not ended and select.select([keyboard], [], [], seconds)[0]:
            try:
                keys = os.read(keyboard, 64)
            except OSError:  # the terminal is gone
                return True
            return not keys or bool(_QUIT & set(keys))
        return bool(ended)

    try:
        tty.setcbreak(keyboard)
        yield is_ended
    finally:
        with contextlib.suppress(termios.error):  # it is gone
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
