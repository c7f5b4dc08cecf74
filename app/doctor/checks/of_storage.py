"""The state folder, the disks, the tool environments. Pure."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Sequence
from typing import Final

from app.doctor.diagnosis import Said, Says, error, ok, warn
from app.doctor.facts import HUB, DiskFacts, FolderFacts, MachineFacts
from backends.huggingface.cache import in_words
from backends.toolenv.tools import TOOLS, total

# A file of measurements has some kB; logs and compiled files of engines need more.
FULL_BYTES: Final = 50 * 10**6
LOW_BYTES: Final = 10**9
FEW_FILES: Final = 1000
# Of a model that is not here the size is not known; seven billion parameters in bf16 take 15 GB.
MODEL_BYTES: Final = 20 * 10**9


def state_folder(facts: MachineFacts) -> Says:
    """Whether a start could use it. What it says when it refuses is said here before."""
    folder = facts.state
    if folder is None:
        yield error("it is not known", "Put right what `config` says of the environment.")
        return
    trouble = _trouble(folder, facts.user)
    if trouble is not None:
        yield trouble
    elif folder.holder is not None and facts.gateway is not None:
        yield ok(f"{folder.path}, held by process {folder.holder or 'that is not known'}")
    else:
        yield ok(f"{folder.path}" if folder.exists else f"{folder.path}, made at the first start")


def _trouble(folder: FolderFacts, user: int) -> Said | None:
    path = folder.path
    if folder.trouble is not None:
        return error(f"{path} cannot be looked at: {folder.trouble}", "Choose another with --state.")
    if not folder.exists:
        if folder.can_be_made:
            return None
        return error(f"{path} cannot be made: the folder above is closed to us", "Choose another with --state.")
    if not folder.is_folder:
        return error(f"{path} is not a folder", "Choose another with --state.")
    if folder.owner != user:
        return error(
            f"{path} belongs to another user (uid {folder.owner}, we are {user})",
            "Run the gateway as its owner, or choose another folder with --state.",
        )
    if folder.has_content and not folder.has_lock:
        return error(f"{path} holds other files", "Choose a new or an empty folder with --state.")
    if folder.mode & stat.S_ISVTX:
        return error(f"{path} is shared by several users", "Choose a folder in it with --state.")
    if folder.mode & 0o077 and folder.has_content:
        return error(f"other users may enter {path}", f"Close it to them: chmod 700 {shlex.quote(str(path))}")
    if not folder.mode & stat.S_IWUSR:
        return error(f"{path} is closed for writing", f"Open it: chmod 700 {shlex.quote(str(path))}")
    return None


def disk(facts: MachineFacts) -> Says:
    """Room for the state folder, the tool environments, and models that are still to come; one line for each disk."""
    disks: dict[int, list[DiskFacts]] = {}
    for each in facts.disks:
        if each.trouble is not None:
            yield warn(f"the {each.what}, {each.path}: {each.trouble}", "Look at its mount and its rights.")
        else:
            disks.setdefault(each.device, []).append(each)
    for folders in disks.values():
        yield _room(folders, facts)


def _room(folders: Sequence[DiskFacts], facts: MachineFacts) -> Said:
    """Of the folders on one disk."""
    one = folders[0]
    places = ", ".join(f"{each.what} ({each.path})" for each in folders)
    free = f"{in_words(one.free_bytes)} of {in_words(one.total_bytes)} free"
    needs = [_needed(each.what, facts) for each in folders]
    lacking = [why for size_bytes, why in needs if one.free_bytes < size_bytes]
    if one.free_files is not None and one.free_files < FEW_FILES:
        return error(f"no more than {one.free_files} files can be made for {places}", "Remove files there.")
    if not one.total_bytes:
        return ok(f"its size is not known for {places}")
    if one.free_bytes < FULL_BYTES:
        return error(
            f"{free} for {places}", "Make room: measurements, certificates and what engines compile cannot be kept."
        )
    if lacking:
        return warn(
            f"{free} for {places}: {'; '.join(lacking)}",
            "Make room, or put a folder on another disk (MODELPORT_STATE, MODELPORT_TOOLS, HF_HOME).",
        )
    return ok(f"{free} for {', '.join(each.what for each in folders)}")


def _needed(what: str, facts: MachineFacts) -> tuple[int, str]:
    """How much should be free for that, and a sentence why."""
    coming = [each.model for each in facts.hub if not each.is_here]
    match what:
        case _ if what == HUB and coming:
            return MODEL_BYTES * len(coming), f"{', '.join(coming)} is still to be downloaded"
        case _ if what == HUB:
            return FULL_BYTES, "nothing is to be downloaded"
        case "tool environments":
            made = facts.tools.whole if facts.tools is not None else ()
            sizes = [total(tool, next(iter(tool.choices), None))[1] for tool in TOOLS.values() if tool.name not in made]
            largest = max(sizes, default=0) * 10**6
            return largest, f"the largest of those that are not made yet takes {in_words(largest)}"
    return LOW_BYTES, "what engines compile is not kept with less than 1 GB"


def tools(facts: MachineFacts) -> Says:
    """Tool environments that were made, and what killed commands left."""
    environments = facts.tools
    if environments is None:
        yield ok("not known")
        return
    for name in environments.broken:
        yield warn(f"the environment '{name}' has lost its interpreter", "`modelport clean` removes it.")
    for name in environments.left:
        yield warn(f"an unfinished environment '{name}' lies in {environments.folder}", "`modelport clean` removes it.")
    if not environments.broken and not environments.left:
        made = ", ".join(environments.whole)
        yield ok(f"made: {made}" if made else "none is made yet; the first command that needs one makes it")
