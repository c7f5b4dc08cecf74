"""Compiles and runs bench/peer.c: the upstream, and the load generator, on the other core."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.machine import Unfit, pinned

LOAD_LIMIT_S = 150.0  # the program gives up by itself before


@dataclass(frozen=True, slots=True)
class Load:
    """The result of one load. `p50_us`, `p99_us`: the median and the 99th percentile of the time from a request to the
    end of its response, or to a stream's first event, in microseconds.
    """

    answered: int
    failures: int
    events: int
    seconds: float
    p50_us: float
    p99_us: float


class Peer:
    """The compiled program, which runs on one core. `keys`: what its loads present, each connection one of them."""

    def __init__(self, program: Path, core: int, keys: Sequence[str] = ()) -> None:
        self._program = program
        self._core = core
        self._keys = tuple(keys)

    @classmethod
    def compiled(cls, folder: Path, core: int, keys: Sequence[str] = ()) -> Peer:
        """Compile it into `folder`; Unfit without a compiler."""
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise Unfit("a C compiler is needed for the load generator, and no cc, gcc or clang is on PATH")
        program = folder / "peer"
        source = Path(__file__).with_name("peer.c")
        compilation = subprocess.run(
            [compiler, "-O2", "-o", str(program), str(source)], capture_output=True, text=True, check=False
        )
        if compilation.returncode:
            raise Unfit(f"{compiler} cannot compile {source.name}:\n{compilation.stderr}")
        return cls(program, core, keys)

    @contextlib.contextmanager
    def upstream(self) -> Iterator[int]:
        """Run the upstream; yields its port."""
        with pinned(self._core):
            process = subprocess.Popen([str(self._program), "serve"], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout
            yield int(process.stdout.readline())
        finally:
            process.kill()
            process.communicate()

    def requests(self, port: int, connections: int, count: int) -> Load:
        """Send `count` chat requests over so many kept connections."""
        return self._load("requests", port, connections, count)

    def streams(self, port: int, count: int) -> Load:
        """Read so many streams at once."""
        return self._load("streams", port, count)

    def _load(self, *words: str | int) -> Load:
        with pinned(self._core):
            done = subprocess.run(
                [str(self._program), *map(str, words), *self._keys],
                capture_output=True,
                text=True,
                check=False,
                timeout=LOAD_LIMIT_S,
            )
        if done.returncode:
            raise Unfit(f"the load `{' '.join(map(str, words))}` ended with {done.returncode}: {done.stderr.strip()}")
        return Load(**json.loads(done.stdout))
