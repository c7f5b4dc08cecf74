"""The tool environments of one folder: made when they are needed, found again, removed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backends.toolenv import build
from backends.toolenv.failures import ToolError as ToolError
from backends.toolenv.tools import TOOLS

_IS_OURS: Final = re.compile(rf"(.+)-[0-9a-f]{{12}}(?:{re.escape(build.MAKING)})?")


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The folder with all tool environments, how progress is told (a line at a time), and who confirms a large
    download (the question with its size in; False: no).
    """

    folder: Path
    say: Callable[[str], None]
    confirm: Callable[[str], bool]

    def python(self, tool: str) -> Path:
        """The interpreter of a tool environment (a name of TOOLS), made first where it is missing.

        Blocks, for minutes at worst. ToolError says why it cannot be had, in one sentence; `Unavailable`
        (backends/toolenv/failures.py) where the package index has no files for this machine.
        """
        return build.make(self.folder, TOOLS[tool], self.say, self.confirm) / "bin/python"


@dataclass(frozen=True, slots=True)
class Removed:
    """What `clean` did: names of environments and their size; those that a running process uses were left, by pid."""

    names: tuple[str, ...]
    freed_bytes: int
    in_use: Mapping[str, int]


def tools_folder(env: Mapping[str, str], state: Path) -> Path:
    """Where tool environments live: MODELPORT_TOOLS, else a folder of the state folder."""
    named = env.get("MODELPORT_TOOLS")
    return Path(named).expanduser().absolute() if named else state / "tools"


def clean(folder: Path, *, is_dry: bool = False) -> Removed:
    """Remove every tool environment of this folder, with what killed runs left; all of it can be made again.

    Only what this program has made is touched; with `is_dry` nothing is. Those in use are left. ToolError when the
    folder cannot be read or one cannot be removed.
    """
    names: list[str] = []
    freed_bytes = 0
    in_use: dict[str, int] = {}
    try:
        for tool in TOOLS:
            ours = [path for path in sorted(folder.glob(f"{tool}-*")) if _tool_of(path.name) == tool]
            lock = folder / f".{tool}.lock"
            if not ours and not lock.exists():
                continue
            with build.held(folder, tool, lambda _: None, wait_s=0):
                for path in ours:
                    if (user := _user_of(path)) is not None:
                        in_use[path.name] = user
                        continue
                    size = build.size_bytes(path)
                    if not is_dry:
                        build.remove(path)
                    names.append(path.name)
                    freed_bytes += size
                lock.unlink(missing_ok=True)
    except OSError as exc:
        raise ToolError(f"{exc.filename or folder}: {exc.strerror or exc}.") from exc
    return Removed(tuple(names), freed_bytes, in_use)


def _tool_of(name: str) -> str | None:
    """The tool whose environment has this name, whole or not; None for what is none."""
    match = _IS_OURS.fullmatch(name)
    return match[1] if match is not None else None


def _user_of(environment: Path) -> int | None:
    """A process that was started with its interpreter; None where there is none, or that cannot be seen here."""
    python = os.fsencode(environment / "bin/python")
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if python in entry.read_bytes().split(b"\0"):
                return int(entry.parent.name)
        except OSError:
            continue
    return None
