"""Makes a tool environment: under a temporary name, tried, and renamed once it is whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from backends.toolenv import guarded
from backends.toolenv.failures import ToolError, Unavailable, pip_failure, shortened
from backends.toolenv.tools import LOCKS, MANY_MB, Choice, Recipe, in_words, requirements, total

MAKING: Final = ".making"
_LONGEST_WAIT_S: Final = 3600.0  # for another command that makes the same one
_LOOK_S: Final = 0.2
# Of pip's configuration: what would put the packages somewhere else, or ask for something else than the lock file.
_UNWANTED: Final = frozenset(
    f"PIP_{name}"
    for name in (
        "TARGET",
        "PREFIX",
        "ROOT",
        "USER",
        "PYTHON",
        "REQUIRE_VIRTUALENV",
        "REQUIREMENT",
        "CONSTRAINT",
        "NO_BINARY",
    )
)

Say = Callable[[str], None]
Confirm = Callable[[str], bool]


def base_python() -> str:
    """The interpreter that ours was made from: an environment made from it does not depend on ours."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def platform() -> str:
    """Whom packages are sought for, in words: "Python 3.11 on Linux x86_64"."""
    uname = os.uname()
    return f"Python {sys.version_info.major}.{sys.version_info.minor} on {uname.sysname} {uname.machine}"


def place(folder: Path, tool: Recipe) -> Path:
    """Where this tool's environment is, or will be."""
    return folder / f"{tool.name}-{tool.digest(f'{platform()} {sysconfig.get_platform()}')}"


def is_whole(environment: Path) -> bool:
    """Whether it is there, with an interpreter that is still on this machine."""
    return os.access(environment / "bin/python", os.X_OK)


@contextlib.contextmanager
def held(folder: Path, name: str, say: Say, wait_s: float = _LONGEST_WAIT_S) -> Iterator[None]:
    """The right to make or remove this tool's environments; one process has it at a time, and a dead one has not.

    ToolError when another one has it for longer than `wait_s` seconds.
    """
    path = folder / f".{name}.lock"
    until = time.monotonic() + wait_s
    is_told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same(descriptor, path):
                break
        except BlockingIOError:
            if time.monotonic() >= until:
                os.close(descriptor)
                raise ToolError(f"the tool environment '{name}' is being made by another command") from None
            if not is_told:
                say(f"Another command is making the tool environment '{name}'; waiting for it …")
                is_told = True
            time.sleep(_LOOK_S)
        os.close(descriptor)
    try:
        yield
    finally:
        os.close(descriptor)


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether the file is still there: who cleans up removes it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def make(folder: Path, tool: Recipe, say: Say, confirm: Confirm) -> Path:
    """The tool's environment in this folder, made unless it is there. Blocks, for minutes at worst.

    ToolError says in one sentence why there is none; then nothing is left of it. What a killed run left is removed.
    """
    target = place(folder, tool)
    if is_whole(target):
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with held(folder, tool.name, say):
            for left in folder.glob(f"{tool.name}-????????????{MAKING}"):
                remove(left)
            if not is_whole(target):
                remove(target)
                _build(target, tool, say, confirm)
    except OSError as exc:
        name = exc.filename if isinstance(exc.filename, str) else folder
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else f"{name}: {exc.strerror or exc}"
        raise ToolError(f"The tool environment '{tool.name}' was not made: {why}.") from exc
    return target


def remove(path: Path) -> None:
    """Remove the folder, whatever state it is in; a kill leaves nothing that looks whole."""
    if path.is_symlink() or path.exists():
        hidden = path if path.name.endswith(MAKING) else path.with_name(path.name + MAKING)
        if hidden != path:
            shutil.rmtree(hidden, ignore_errors=True)
            path.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def _build(target: Path, tool: Recipe, say: Say, confirm: Confirm) -> None:
    began = time.monotonic()
    making = target.with_name(target.name + MAKING)
    choices: tuple[Choice | None, ...] = tool.choices_for(sys.platform) or (None,)
    try:
        for choice in choices:
            try:
                _check_room(tool, choice, target.parent, say, confirm)
                _install(making, tool, choice, say)
                break
            except Unavailable as exc:
                if choice is choices[-1]:
                    raise
                say(f"  {shortened(str(exc))}")
                remove(making)
        os.sync()  # after a power cut, what has its name is whole
        making.rename(target)
    except ToolError as exc:
        # The subclass tells who asked that there is no such package for this machine.
        raise type(exc)(f"The tool environment '{tool.name}' ({tool.what}) was not made: {exc}.") from exc
    finally:
        remove(making)
    say(f"  made in {time.monotonic() - began:.0f} s, {in_words(size_bytes(target) / 1e6)}")


def _check_room(tool: Recipe, choice: Choice | None, folder: Path, say: Say, confirm: Confirm) -> None:
    download_mb, disk_mb = total(tool, choice)
    cost = f"about {in_words(download_mb)} to download, {in_words(disk_mb)} on the disk"
    free_mb = shutil.disk_usage(folder).free / 1e6
    # While it is installed, the downloaded files lie beside it.
    if free_mb < disk_mb + download_mb:
        raise ToolError(
            f"it needs {in_words(disk_mb + download_mb)} of free space in {folder}, and there are {in_words(free_mb)}"
        )
    if choice is not None and choice.download_mb >= MANY_MB and not confirm(f"{choice.what}: {cost}. Go on?"):
        raise ToolError(f"{choice.what} would be {cost}, and that was not agreed to (--yes agrees)")
    say(f"Making the tool environment '{tool.name}' ({tool.what}; {cost}) in {folder} …")


def _install(making: Path, tool: Recipe, choice: Choice | None, say: Say) -> None:
    code, printed = _printed([base_python(), "-I", "-m", "venv", "--without-pip", str(making)], os.environ, None)
    if code:
        raise ToolError(f"{base_python()} cannot make a virtual environment: {_last(printed)}")
    python = making / "bin/python"
    temporary = making / "tmp"
    temporary.mkdir()
    env = {name: value for name, value in os.environ.items() if name not in _UNWANTED and not name.startswith("PYTHON")}
    # A lock file is complete, so nothing is resolved: pip would look again at what each package asks for, and fail when
    # a dependency's dependency has a newer release than the file has a hash for.
    pip = [*_pip(python), "install", "--require-hashes", "--no-deps", "--only-binary", ":all:"]
    for lock in (*([choice.lock] if choice is not None else []), *tool.locks):
        say(f"  {lock}.lock: {len(set(requirements(lock)))} packages")
        argv = [*pip, "--disable-pip-version-check", "--no-input", "-r", str(LOCKS / f"{lock}.lock")]
        code, printed = _printed(argv, {**env, "TMPDIR": str(temporary)}, say)
        if code:
            raise pip_failure(printed, code, platform())
    shutil.rmtree(temporary, ignore_errors=True)
    code, printed = _printed([str(python), "-I", "-c", tool.probe], os.environ, None)
    if code:
        raise ToolError(f"what was installed does not work here: {_last(printed)}")


def have_pip() -> list[str]:
    """Interpreters whose pip may do for an environment too, as far as they have one."""
    return list(dict.fromkeys((sys.executable, base_python())))


def _pip(python: Path) -> list[str]:
    """The command that installs into the environment of this interpreter: a pip that is here already, else one that is
    put into it. ToolError when there is none.
    """
    for each in have_pip():
        if _printed([each, "-I", "-m", "pip", "--python", str(python), "--version"], os.environ, None)[0] == 0:
            return [each, "-I", "-m", "pip", "--python", str(python)]
    code, printed = _printed([str(python), "-I", "-m", "ensurepip"], os.environ, None)
    if code:
        raise ToolError(f"{base_python()} has no pip (Debian, Ubuntu: apt-get install python3-pip): {_last(printed)}")
    return [str(python), "-I", "-m", "pip"]


def _printed(argv: list[str], env: Mapping[str, str], say: Say | None) -> tuple[int, list[str]]:
    """The exit code, and what it printed; `say` is told of large downloads."""
    printed: list[str] = []

    def on_line(line: bytes) -> bool:
        text = line.decode(errors="replace").rstrip()
        printed.append(text)
        if say is not None and (large := re.search(r"Downloading (\S+) \(([0-9.]+ (?:MB|GB))\)", text)):
            say(f"  downloading {large[1].rpartition('/')[2]} ({large[2]})")
        return False

    errors: list[str] = []
    code = guarded.run(argv, env, on_line, lambda line: errors.append(line.decode(errors="replace").rstrip()))
    return code, [*printed, *errors]


def _last(printed: list[str]) -> str:
    return next((shortened(line) for line in reversed(printed) if line.strip()), "it said nothing")


def size_bytes(folder: Path) -> int:
    """What all files in it take, hard links and unreadable ones included."""
    total_bytes = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total_bytes += (Path(parent) / name).lstat().st_size
    return total_bytes
