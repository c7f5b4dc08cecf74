"""What one registration has done, written down before each act and after it: the next run finishes a killed one.

Each registration has a folder of its own below the state folder, with its journal, its log and its files. Everything in
that folder that the journal does not name is a leftover.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote, unquote

import msgspec

from app.whole_file import write_whole

FOLDER: Final = "registrations"
_JOURNAL: Final = "journal.json"
_LOG: Final = "log.txt"
CERTIFICATE: Final = "certificate-"  # how the names of certificates begin
_PATIENCE_S: Final = 30.0
_LOOK_S: Final = 0.05


class RegistrationError(Exception):
    """The command cannot go on. One sentence: what is wrong, with the value, and what to do."""


class Made(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that a registration makes, so that it can be taken away again.

    `file`: a file or folder, by its path. `entry`: a value in the configuration file, by its path of keys. `model`: a
    model of an Ollama daemon, with the daemon's URL; `digest`: of its weights.
    """

    what: Literal["file", "entry", "model"]
    path: str = ""
    keys: tuple[str, ...] = ()
    value: Any = None
    name: str = ""
    url: str = ""
    digest: str = ""


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One step. `key`: the content hash of everything that its result depends on. `seconds`: None until it is done."""

    key: str
    began: str
    made: tuple[Made, ...] = ()
    seconds: float | None = None
    result: dict[str, Any] = {}


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """The whole journal. `stamps`: size, time stamp and digest of source files, by path. `base`, `template`, `training`
    and `context`: what the command was given, or found out, of the model beside its folder.
    """

    name: str
    source: str
    config: str
    base: str | None = None
    template: str | None = None
    training: str | None = None
    context: int | None = None
    steps: dict[str, StepRecord] = {}
    stamps: dict[str, tuple[int, int, str]] = {}
    is_complete: bool = False


class Journal:
    """The journal of one registration, in its folder. Only one process at a time has it, see `opened`."""

    def __init__(self, folder: Path, content: Content) -> None:
        self.folder = folder
        self.content = content

    def __repr__(self) -> str:
        return f"<Journal {self.content.name} steps={list(self.content.steps)}>"

    def done(self, step: str, key: str) -> StepRecord | None:
        """The record of a step that is finished with this key; None where it has to be done."""
        record = self.content.steps.get(step)
        return record if record is not None and record.key == key and record.seconds is not None else None

    def made(self) -> list[Made]:
        """Everything that it has made or was about to make, the latest first."""
        return [made for record in reversed(self.content.steps.values()) for made in reversed(record.made)]

    def begin(self, step: str, key: str, *made: Made, now: datetime.datetime) -> None:
        """Write down that a step begins and what it is going to make, beside what it made before."""
        before = self.content.steps.get(step)
        kept = tuple(each for each in (before.made if before is not None else ()) if each not in made)
        self._put(step, StepRecord(key=key, began=now.isoformat(timespec="seconds"), made=(*kept, *made)))

    def finish(self, step: str, seconds: float, made: tuple[Made, ...], result: Mapping[str, Any]) -> None:
        """Write down that the step is done, and what there is of it now."""
        record = self.content.steps[step]
        self._put(step, msgspec.structs.replace(record, seconds=seconds, made=made, result=dict(result)))

    def _put(self, step: str, record: StepRecord) -> None:
        others = {name: each for name, each in self.content.steps.items() if name != step}
        self.write(msgspec.structs.replace(self.content, steps={**others, step: record}, is_complete=False))

    def write(self, content: Content) -> None:
        """Replace the journal. RegistrationError where the disk does not take it."""
        with errors_told(self.folder / _JOURNAL):
            write_whole(self.folder / _JOURNAL, msgspec.json.format(msgspec.json.encode(content)))
        self.content = content

    def log(self, line: str, now: datetime.datetime) -> None:
        """Add a line to the log of what was done."""
        with errors_told(self.folder / _LOG), (self.folder / _LOG).open("a", encoding="utf-8") as file:
            file.write(f"{now.isoformat(timespec='seconds')} {line}\n")

    def sweep(self) -> None:
        """Remove what is in the folder and is not named: what a killed run left, and files of an earlier version."""
        named = {made.path for record in self.content.steps.values() for made in record.made if made.what == "file"}
        for entry in self.folder.iterdir():
            is_report = entry.name in (_JOURNAL, _LOG) or entry.name.startswith(CERTIFICATE)
            if not is_report and str(entry) not in named:
                remove(entry)

    def erase(self) -> None:
        """Remove the registration's folder with all that is in it."""
        with errors_told(self.folder):
            (self.folder / _JOURNAL).unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file or a folder; nothing happens where it is not there or does not go."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def errors_told(path: Path) -> Iterator[None]:
    """An OSError inside becomes a RegistrationError with this path."""
    try:
        yield
    except OSError as exc:
        raise RegistrationError(f"{path} cannot be written: {exc.strerror or exc}") from exc


def folder_of(state: Path, name: str) -> Path:
    """The folder of the registration of this name."""
    safe = quote(name, safe=" @+=")
    return state / FOLDER / (f"%2E{safe[1:]}" if safe.startswith(".") else safe)


def names(state: Path) -> list[str]:
    """The names that are registered, finished or not."""
    with contextlib.suppress(OSError):
        return sorted(unquote(path.parent.name) for path in (state / FOLDER).glob(f"*/{_JOURNAL}"))
    return []


def read(folder: Path) -> Content | None:
    """The journal in the folder; None where there is none. RegistrationError where it cannot be read."""
    path = folder / _JOURNAL
    try:
        return msgspec.json.decode(path.read_bytes(), type=Content)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise RegistrationError(f"{path} cannot be read: {exc.strerror}") from exc
    except msgspec.MsgspecError as exc:
        raise RegistrationError(f"{path} is damaged ({exc}); remove its folder by hand") from exc


def serving(state: Path, name: str) -> Content | None:
    """The journal of the registration that made this public name, also one with an engine's name at its end; None where
    none did. RegistrationError where a journal cannot be read.
    """
    for registered in sorted(names(state), key=lambda each: each != name):
        content = read(folder_of(state, registered))
        if content is None:
            continue
        keys = [each.keys for step in content.steps.values() for each in step.made if each.what == "entry"]
        if content.name == name or any(each == ("models", name) or each[-2:] == ("adapters", name) for each in keys):
            return content
    return None


@contextlib.contextmanager
def opened(folder: Path, fresh: Callable[[], Content]) -> Iterator[Journal]:
    """The journal of the registration in this folder, made where there is none; nobody else has it meanwhile.

    RegistrationError where another process has it, or the folder cannot be made. A folder that is empty in the end is
    removed.
    """
    with errors_told(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            name = unquote(folder.name)
            raise RegistrationError(f"another command works on '{name}' right now: wait until it has ended") from exc
        yield Journal(folder, read(folder) or fresh())
    finally:
        with contextlib.suppress(OSError):
            if not (folder / _JOURNAL).exists() and {each.name for each in folder.iterdir()} <= {_LOG}:
                shutil.rmtree(folder)
        os.close(descriptor)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Whoever else edits the file `path` with these commands waits meanwhile. RegistrationError after 30 s."""
    with errors_told(path.parent):
        descriptor = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(int(_PATIENCE_S / _LOOK_S)):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(_LOOK_S)
        else:
            raise RegistrationError(f"another command has been changing {path} for {_PATIENCE_S:.0f} s: try again")
        yield
    finally:
        os.close(descriptor)
