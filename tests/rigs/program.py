"""A program that a test starts, and reads line by line."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests import ROOT

# A start on a machine that does other things; nothing is asserted about it.
PATIENCE_S = 90.0


class Program:
    """A child process whose output is read line by line. Closing it ends it and everything that it started.

    `errors`: the file that what it does not print to `lines_of` goes into; `ends_by`: the signal that asks it to end.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        errors: Path | None = None,
        *,
        cwd: Path = ROOT,
        stdin: Any = subprocess.DEVNULL,
        lines_of: Literal["stdout", "stderr"] = "stdout",
        ends_by: int = signal.SIGINT,  # as Ctrl-C, which waits for no load balancer
    ) -> None:
        self.errors = errors
        self._ends_by = ends_by
        with (errors or Path(os.devnull)).open("wb") as other:
            self.process = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=dict(env) if env is not None else None,
                stdin=stdin,
                stdout=subprocess.PIPE if lines_of == "stdout" else other,
                stderr=subprocess.PIPE if lines_of == "stderr" else other,
                text=True,
                start_new_session=True,
            )
        pipe = self.process.stdout or self.process.stderr
        assert pipe is not None
        self._pipe = pipe
        self.printed: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._pipe:
            self._lines.put(line)
        self._lines.put("")  # it has ended

    def line(self, pattern: str) -> re.Match[str]:
        """The first printed line that matches; waits for it."""
        for line in self.printed:
            if match := re.search(pattern, line):
                return match
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE_S)
            except queue.Empty:
                line = ""
            if not line:
                errors = self.errors.read_text() if self.errors else ""
                raise AssertionError(f"nothing like {pattern!r} in {''.join(self.printed)}\n{errors}")
            self.printed.append(line)
            if match := re.search(pattern, line):
                return match

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it and read the rest."""
        if self.process.poll() is None:
            self.process.send_signal(self._ends_by)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join()
        self._pipe.close()
