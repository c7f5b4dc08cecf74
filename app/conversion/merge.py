"""A LoRA adapter and its base become one model's folder. Blocks.

Plain LoRA is added to the base's files tensor by tensor, which takes the memory of one tensor; the result is PEFT's bit
by bit. Whatever else an adapter is (DoRA, whole layers that were trained, other methods) PEFT merges, with the whole
model in memory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from app.conversion.errors import ConversionError, FolderProblem
from app.conversion.lora import additions, rows_wanted, why_peft
from app.conversion.model_folder import ModelFolder, read_model_folder
from app.conversion.progress import ProgressReport
from app.conversion.room import check_disk, check_memory, memory_needed, memory_to_load
from app.conversion.scripts import script
from app.conversion.workplace import free_bytes, put_in_place, workplace
from app.supervisor.capacity.devices import free_memory_gb
from backends.huggingface.cache import folder_of
from backends.huggingface.fetcher import cache, is_repository
from backends.toolenv.child import call
from backends.toolenv.environment import Toolbox, ToolError

_TEXTS: Final = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".md")
_OF_TOKENIZERS: Final = frozenset(
    (
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "vocab.txt",
        "spiece.model",
        "chat_template.jinja",
        "chat_template.json",
    )
)


def merge(
    adapter: Path,
    base: Path | None,
    out: Path,
    toolbox: Toolbox,
    progress: ProgressReport,
    *,
    trust_remote_code: bool = False,
) -> Path:
    """Write the merged model's folder to `out`, which must not be there; returns it. `base` None: what the adapter was
    trained on, as its adapter_config.json says. Raises ConversionError or ToolError.
    """
    model = read_model_folder(adapter)
    if not model.is_adapter:
        raise ConversionError(f"'{adapter}' is a model, not an adapter (LoRA): there is nothing to merge")
    below = base_of(model, base)
    if out.exists():
        raise ConversionError(f"'{out}' is there already: name another folder")
    with workplace(out) as folder:
        made = folder / "merged"
        merge_into(model, below, made, toolbox, progress, trust_remote_code=trust_remote_code)
        put_in_place(made, out)
    return out


def base_of(adapter: ModelFolder, named: Path | None) -> ModelFolder:
    """The model that the adapter belongs to: the one that is named, else what its configuration says, as a folder or
    as a model of the hub that is on this machine already. Raises ConversionError.
    """
    where = named if named is not None else _remembered(adapter)
    if where is None:
        said = f"was trained on '{adapter.base}', which is not on this machine" if adapter.base else "names no base"
        raise ConversionError(f"'{adapter.folder}' {said}: name the base's folder with --base")
    base = read_model_folder(where)
    if base.is_adapter:
        raise FolderProblem(f"the base '{where}' is an adapter itself: merge that one first, or name another base")
    return base


def merge_into(
    adapter: ModelFolder,
    base: ModelFolder,
    made: Path,
    toolbox: Toolbox,
    progress: ProgressReport,
    *,
    trust_remote_code: bool,
) -> None:
    """Write the merged model into a folder that is not there yet, in a workplace. Raises ConversionError, ToolError."""
    reason = why_peft(adapter, base)
    scales = additions(adapter, base) if reason is None else {}
    disk = free_bytes(made.parent)
    check_disk("the merged model", str(made.parent.parent), base.weights_bytes, disk)
    needed = memory_needed(base) if reason is None else memory_to_load(base)
    check_memory(f"merging '{adapter.folder}'", needed, free_memory_gb())
    python = toolbox.python("convert")
    made.mkdir()
    request: dict[str, Any] = {"base": str(base.folder), "out": str(made)}
    if reason is None:
        how = script("merge_lora")
        request |= {
            "files": [file.name for file in base.weights],
            "adapter": str(adapter.weights[0]),
            "scales": {name: asdict(each) for name, each in scales.items()},
        }
        progress.step("merging the adapter into the base")
    else:
        how = script("merge_by_peft")
        request |= {
            "adapter": str(adapter.folder),
            "rows": rows_wanted(adapter, base),
            "trust_remote_code": trust_remote_code,
        }
        toolbox.say(f"PEFT merges this adapter, with the whole base in memory ({reason})")
    try:
        call(python, how, request, lambda said: report(progress, said))
    except ToolError as exc:
        raise ConversionError(f"'{adapter.folder}' cannot be merged into '{base.folder}': {exc}") from exc
    _copy_texts(adapter, base, made, has_same_files=reason is None)


def report(progress: ProgressReport, said: Mapping[str, Any]) -> None:
    """Tell what a script has said of its progress."""
    if "step" in said:
        progress.step(str(said["step"]))
    if "done" in said:
        progress.bytes(min(int(said["done"]), int(said["total"])), int(said["total"]))


def _remembered(adapter: ModelFolder) -> Path | None:
    """Where the base is that the adapter's configuration names; None where it is not on this machine."""
    if adapter.base is None:
        return None
    for place in (Path(adapter.base).expanduser(), adapter.folder / adapter.base):
        if place.is_dir():
            return place
    if not is_repository(adapter.base):
        return None
    folder = folder_of(cache(os.environ), adapter.base)
    try:
        commit = (folder / "refs" / (adapter.config.get("revision") or "main")).read_text().strip()
    except OSError:
        return None
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def _copy_texts(adapter: ModelFolder, base: ModelFolder, made: Path, *, has_same_files: bool) -> None:
    """Configuration and tokenizer: the adapter's tokenizer where it has one, as that is what it was trained with."""
    left_out = {each.name for each in made.iterdir()}
    if adapter.tokenizer_files:
        left_out |= _OF_TOKENIZERS
    for file in sorted(base.folder.iterdir()):
        is_text = file.suffix in _TEXTS and file.is_file() and file.name not in left_out
        if is_text and (has_same_files or not file.name.endswith(".index.json")):
            shutil.copyfile(file, made / file.name)
    if adapter.tokenizer_files:
        for name in sorted(_OF_TOKENIZERS):
            if (adapter.folder / name).is_file():
                shutil.copyfile(adapter.folder / name, made / name)
