"""Files of JSON lines that grow while a command runs, and outlive its being killed at any byte."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import msgspec

from app.comparison.running.run_record import RunProblem

T = TypeVar("T")
PRIVATE: Final = 0o600  # questions and answers are nobody else's, wherever their folder is


class LineFile(Generic[T]):
    """Values of one type, one a line. Opening it drops a last line that was cut; `append` gives each line to the
    kernel at once, so that only a machine that fails can lose it. All methods block; RunProblem where the disk does
    not do it.
    """

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.path = path
        self._kind = kind
        self._file: io.FileIO | None = None

    def __enter__(self) -> Self:
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._file = io.FileIO(os.open(self.path, flags, PRIVATE), "ab")
            os.ftruncate(self._file.fileno(), _whole_bytes(self.path))
        except OSError as exc:
            raise _unusable(self.path, exc) from exc
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def append(self, value: T) -> None:
        """Write one line."""
        assert self._file is not None
        line = memoryview(msgspec.json.encode(value) + b"\n")
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as exc:
            raise _unusable(self.path, exc) from exc

    def read(self) -> list[T]:
        """All whole lines, in the order in which they were written; none where there is no file."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise _unusable(self.path, exc) from exc
        return list(self._values(data[: data.rfind(b"\n") + 1]))

    def _values(self, data: bytes) -> Iterator[T]:
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self._kind)
        for number, line in enumerate(data.splitlines(), start=1):
            try:
                yield decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                raise RunProblem(
                    f"{self.path}: line {number} is not one of a comparison's ({exc}); take the line out, or begin a "
                    "new comparison"
                ) from exc


def _whole_bytes(path: Path) -> int:
    """Where the last whole line ends."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = max(0, end - 65536)
            file.seek(begin)
            at = file.read(end - begin).rfind(b"\n")
            if at >= 0:
                return begin + at + 1
            end = begin
    return 0


def _unusable(path: Path, exc: OSError) -> RunProblem:
    return RunProblem(
        f"{path} cannot be used: {exc.strerror}; once that is mended, the same command goes on where it was"
    )
