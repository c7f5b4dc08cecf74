"""A folder in Hugging Face layout, or a LoRA adapter with its base, becomes one GGUF file. Blocks.

The converter is llama.cpp's own. It sees a folder of links that holds nothing but what it may read: no pickles, and no
code unless that is trusted. What comes out is made in a hidden folder beside its place and renamed when it is whole.
"""

from __future__ import annotations

import difflib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.conversion.conversion import Conversion
from app.conversion.digest import BASE, INPUTS, WEIGHTS, digests, of_weights, recorded
from app.conversion.errors import ConversionError
from app.conversion.merge import base_of, merge_into, report
from app.conversion.model_folder import ModelFolder, read_model_folder
from app.conversion.progress import ProgressReport
from app.conversion.quantize import quantise_into
from app.conversion.room import (
    between,
    check_disk,
    check_memory,
    disk_needed,
    expected_bytes,
    memory_needed,
    outtype_of,
)
from app.conversion.scripts import script
from app.conversion.workplace import free_bytes, put_in_place, workplace
from app.supervisor.capacity.devices import free_memory_gb
from backends.llama_cpp.gguf_contents import read_contents
from backends.llama_cpp.gguf_header import Unreadable
from backends.model_files.digests import value_digest
from backends.toolenv.child import call
from backends.toolenv.environment import Toolbox, ToolError

__all__ = ["Conversion", "ConversionError", "convert", "default_out"]

# Of all that decides what is in a file: to be raised when this code writes other files from the same inputs.
_EDITION: Final = 2
_SCRIPT: Final = script("to_gguf")
_TEXTS: Final = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".md")
_UNKNOWN: Final = "does not know the architecture"


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be done: `model` may be an adapter with its `base`."""

    model: ModelFolder
    base: ModelFolder | None
    outtype: str
    out: Path
    chat_template: str | None
    eos: tuple[str, ...]
    adds_bos: bool | None
    trust_remote_code: bool

    @property
    def weights(self) -> ModelFolder:
        """Whose weights the file will have."""
        return self.base if self.base is not None else self.model


def convert(
    source: Path,
    outtype: str,
    out: Path | None,
    toolbox: Toolbox,
    progress: ProgressReport,
    *,
    base: Path | None = None,
    chat_template: str | None = None,
    eos: Sequence[str] = (),
    adds_bos: bool | None = None,
    trust_remote_code: bool = False,
    replace: bool = False,
) -> Conversion:
    """Make a GGUF file of a model's or an adapter's folder. Raises ConversionError or ToolError, and leaves nothing.

    `outtype`: "auto", "f16", "q8_0", "q4_k_m" …; `out` None: beside the folder (`default_out`). `base`: of an adapter,
    where its configuration does not lead to it. `chat_template`: Jinja text that goes into the file in place of the
    tokenizer's. `eos`: texts of more tokens at which an answer ends. `adds_bos`: whether an engine puts the first
    token before each text, None: as the tokenizer says. A file that is there stays, unless it was made
    from the same inputs (then it is the result) or `replace`.
    """
    started = time.monotonic()
    model = read_model_folder(source.expanduser().absolute())
    if base is not None and not model.is_adapter:
        raise ConversionError(f"'{source}' is a model, not an adapter (LoRA): it has no base")
    below = base_of(model, base) if model.is_adapter else None
    kind = outtype_of(below or model, outtype)
    target = _target(out, model.folder, kind)
    work = _Work(model, below, kind, target, chat_template, tuple(eos), adds_bos, trust_remote_code)
    try:
        recorded_as = _metadata(work, progress)
    except OSError as exc:
        raise ConversionError(f"'{exc.filename or source}' cannot be read: {exc.strerror or exc}") from exc
    if target.exists():
        if _made_from(target) == recorded_as[INPUTS]:
            return _conversion(work, target, started, was_there=True)
        if not replace:
            raise ConversionError(
                f"'{target}' is there already, and was made from something else: name another file with --out, or "
                "replace it with --replace"
            )
    _check_room(work)
    with workplace(target) as folder:
        made, remarks = _make(work, recorded_as, folder, toolbox, progress)
        result = _conversion(work, made, started, remarks)
        put_in_place(made, target)
    return result


def default_out(source: Path, outtype: str) -> Path:
    """Where the file goes: beside the folder, under its name. Not inside: an engine that is pointed at a folder with
    both kinds of weights takes the safetensors.
    """
    folder = source.expanduser().absolute()
    return folder.with_name(f"{folder.name or 'model'}-{outtype}.gguf")


def _target(out: Path | None, source: Path, outtype: str) -> Path:
    target = default_out(source, outtype) if out is None else out.expanduser().absolute()
    if target.is_dir():
        target /= default_out(source, outtype).name
    if not target.parent.is_dir():
        raise ConversionError(f"'{target.parent}' is not a folder here: make it, or name another place with --out")
    return target


def _metadata(work: _Work, progress: ProgressReport) -> dict[str, str]:
    """What is written into the file about where it comes from. Reads all weights. Raises OSError."""
    progress.step("computing the digest of the weights")
    folders = [each for each in (work.model, work.base) if each is not None]
    total = max(sum(each.weights_bytes for each in folders), 1)
    done = 0

    def tell(read: int) -> None:
        nonlocal done
        done += read
        progress.bytes(min(done, total), total)

    files = [digests(each, tell) for each in folders]
    result = {WEIGHTS: of_weights(work.model, files[0])}
    if work.base is not None:
        result[BASE] = of_weights(work.base, files[1])
    settings = [_EDITION, files, work.outtype, work.chat_template, sorted(work.eos), work.trust_remote_code]
    settings += [work.adds_bos] if work.adds_bos is not None else []
    return {**result, INPUTS: value_digest(settings)}


def _made_from(target: Path) -> str | None:
    try:
        return recorded(target, INPUTS)
    except OSError as exc:
        raise ConversionError(f"'{target}' is there already and cannot be read: {exc.strerror or exc}") from exc


def _check_room(work: _Work) -> None:
    what = f"the conversion of '{work.model.folder}' to {work.outtype}"
    needed = disk_needed(work.weights, work.outtype) + (work.base.weights_bytes if work.base is not None else 0)
    check_disk(what, str(work.out.parent), needed, free_bytes(work.out.parent))
    check_memory(what, memory_needed(work.weights), free_memory_gb())


def _make(
    work: _Work, recorded_as: Mapping[str, str], folder: Path, toolbox: Toolbox, progress: ProgressReport
) -> tuple[Path, tuple[str, ...]]:
    """The finished file in the workplace, and what the user should know about it."""
    model = work.model
    if work.base is not None:
        merged = folder / "merged"
        merge_into(model, work.base, merged, toolbox, progress, trust_remote_code=work.trust_remote_code)
        model = read_model_folder(merged)
    staged = folder / "staged"
    _stage(model, staged, with_code=work.trust_remote_code)
    middle = between(model, work.outtype)
    made = folder / "converted.gguf"
    left = _run_converter(work, model, staged, made, middle or work.outtype, recorded_as, toolbox, progress)
    if middle is not None:
        if work.base is not None:
            shutil.rmtree(folder / "merged")
        quantised = folder / "quantised.gguf"
        quantise_into(made, work.outtype, quantised, toolbox, progress, expected_bytes(model, work.outtype))
        made = quantised
    return made, _remarks(work, model, left)


def _stage(model: ModelFolder, staged: Path, *, with_code: bool) -> None:
    """A folder of links to all that the converter may read."""
    staged.mkdir()
    for file in [*model.weights, *sorted(model.folder.iterdir())]:
        is_text = file.suffix in _TEXTS or (with_code and file.suffix == ".py")
        if file.is_file() and (file in model.weights or is_text):
            link = staged / file.name
            if not link.is_symlink():
                link.symlink_to(file.absolute())
    for inner in sorted(model.folder.glob("*/config.json")):  # of sentence embedders: how vectors are pooled
        (staged / inner.parent.name).mkdir(exist_ok=True)
        (staged / inner.parent.name / inner.name).symlink_to(inner.absolute())


def _run_converter(
    work: _Work,
    model: ModelFolder,
    staged: Path,
    made: Path,
    outtype: str,
    recorded_as: Mapping[str, str],
    toolbox: Toolbox,
    progress: ProgressReport,
) -> Sequence[str]:
    python = toolbox.python("convert")
    ids = model.generation.get("eos_token_id")
    request = {
        "source": str(staged),
        "out": str(made),
        "outtype": outtype,
        "name": work.model.folder.name,
        "chat_template": work.chat_template,
        "stops": list(work.eos),
        "adds_bos": work.adds_bos,
        "stop_ids": [each for each in (ids if isinstance(ids, list) else [ids]) if type(each) is int],
        "metadata": dict(recorded_as),
        "trust_remote_code": work.trust_remote_code,
    }
    try:
        said = call(
            python,
            _SCRIPT,
            request,
            lambda said: report(progress, said),
            env={"HF_MODULES_CACHE": str(staged.parent / "modules"), "HF_HOME": str(staged.parent / "hub")},
        )
    except ToolError as exc:
        hint = _hint(model, python) if _UNKNOWN in str(exc) else ""
        raise ConversionError(f"'{work.model.folder}' cannot be converted: {exc}{hint}") from exc
    return [str(text) for text in said["left"]]


def _hint(model: ModelFolder, python: Path) -> str:
    """What helps with an architecture that the converter does not know."""
    known = call(python, _SCRIPT, {"list": True})
    near = difflib.get_close_matches(model.architecture or "", [str(each) for each in known], 1)
    nearest = f"the nearest that it knows is {near[0]}; " if near else ""
    return f" ({nearest}vLLM may serve the folder as it is)"


def _remarks(work: _Work, model: ModelFolder, left: Sequence[str]) -> tuple[str, ...]:
    remarks = []
    if left:
        remarks.append(
            f"an answer does not end by itself at {', '.join(map(repr, left))}: name it among the stops where the "
            "model is served"
        )
    is_chat = (model.architecture or "").endswith(("ForCausalLM", "ForConditionalGeneration", "LMHeadModel"))
    if is_chat and work.chat_template is None and model.chat_template is None:
        remarks.append("the model has no chat template: name the one it was trained with by --chat-template")
    if work.base is not None and work.model.tokenizer_files:
        remarks.append("the tokenizer is the adapter's, not the base's")
    return tuple(remarks)


def about_place(out: Path, folder: Path) -> tuple[str, ...]:
    """What is to be said of a file's place, if anything: inside the model's folder it is easily passed over."""
    if out.parent.resolve() != folder.resolve():
        return ()
    return (
        f"'{out.name}' lies in the model's folder, where Ollama's `FROM .` takes the safetensors and not this file: "
        f"write `FROM ./{out.name}`, or put it elsewhere with --out",
    )


def _conversion(
    work: _Work, file: Path, started: float, remarks: tuple[str, ...] = (), *, was_there: bool = False
) -> Conversion:
    try:
        contents = read_contents(file)
    except Unreadable as exc:
        raise ConversionError(f"'{work.model.folder}' cannot be converted: the result is not whole: {exc}") from exc
    return Conversion(
        work.out,
        work.outtype,
        file.stat().st_size,
        contents.parameters,
        contents.bits_per_weight,
        work.weights.weights_bytes,
        time.monotonic() - started,
        was_there,
        (*remarks, *about_place(work.out, work.model.folder)),
    )
