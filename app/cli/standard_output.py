"""Standard output and error as they may be: closed, full, or in an encoding that has not every letter."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path


def run(verb: Callable[[], object]) -> None:
    """Run a verb whatever becomes of what it prints. Where there is no room for it: one sentence, and exit code 1."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # started with it closed
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # as long as we live
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        verb()
    except OSError as exc:
        if exc.errno != errno.ENOSPC or exc.filename is not None:
            raise
        # What is still to be written would fail again at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"modelport: what is to be printed cannot be written: {exc.strerror}", file=sys.stderr)
        sys.exit(1)
