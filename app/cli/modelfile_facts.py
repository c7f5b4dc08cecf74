"""What is known of the model that a Modelfile is for, from its folder or its GGUF file. Blocks."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from app.registration.journal import RegistrationError
from app.registration.modelfile_check import KnownModel
from backends.llama_cpp.gguf_header import MAGIC

_PROJECTOR = "mmproj"  # a second file, for pictures: no model by itself


def facts_of(
    model: Path, beside: Path, *, template: str | None, training: Path | None, state: Path | None, yes: bool
) -> KnownModel:
    """What is known of a folder or a GGUF file, for a Modelfile in the folder `beside`. Raises what is told in one
    sentence.
    """
    if model.is_dir():
        return _of_folder(model, beside, template=template, training=training, state=state, yes=yes)
    if template is not None or training is not None:
        raise RegistrationError(f"'{model}' is no folder: what it was trained on is compared with a folder only")
    return _of_gguf(model, beside)


def weights_name(model: Path, beside: Path) -> str:
    """What FROM has to name: a file by its path from the Modelfile's folder. RegistrationError where that is open."""
    if model.is_dir():
        files = sorted(each for each in model.glob("*.gguf") if not each.name.startswith(_PROJECTOR))
        if len(files) > 1:
            raise RegistrationError(
                f"'{model}' holds several GGUF files ({', '.join(each.name for each in files)}): name the one to serve"
            )
        model = files[0] if files else model
    if model.parent == beside:
        return f"./{model.name}"
    return "." if model == beside else str(model)


def origin(model: Path, weights: str, beside: Path) -> str | None:
    """What is to be said of a GGUF file in a model's folder: whether it was made of this folder's weights. None where
    it was, or where FROM names no such file. Reads all weights where the file says what it was made from.
    """
    from app.conversion.digest import WEIGHTS, recorded
    from app.conversion.model_folder import read_model_folder
    from backends.model_files.digests import weights_digest

    file = beside / weights
    if not model.is_dir() or not file.is_file():
        return None
    try:
        made_from = recorded(file, WEIGHTS)
        if made_from is None:
            return f"FROM {weights}: nothing in that file says that it was made of the weights in '{model}'"
        if made_from != weights_digest(read_model_folder(model).weights):
            return f"FROM {weights}: that file was made of other weights than those in '{model}': convert them again"
    except OSError as exc:
        raise RegistrationError(f"'{file}' cannot be compared with '{model}': {exc.strerror or exc}") from exc
    return None


def _of_folder(
    folder: Path, beside: Path, *, template: str | None, training: Path | None, state: Path | None, yes: bool
) -> KnownModel:
    from app.cli.toolbox import toolbox
    from app.conversion.model_folder import read_model_folder
    from app.reference.reference import reference

    model = read_model_folder(folder)
    if model.is_adapter:
        raise RegistrationError(
            f"'{folder}' is an adapter (LoRA): the daemon needs it merged; `modelport convert` does it, `modelport "
            "register` does all of it"
        )
    trained_on = reference(folder, toolbox(state, yes=yes), template=template, training=training)
    return KnownModel(
        files=_names(beside),
        hidden_ggufs=_hidden_ggufs(beside),
        context_length=model.context_length,
        stops=trained_on.stops,
        generation=model.generation,
        default_system=trained_on.default_system,
        rendered=trained_on.rendered,
        own_serves=trained_on.chat_template is None,
        takes_tools="tools" in (model.chat_template or ""),
        bos=trained_on.bos if trained_on.starts_with_bos else None,
        trained_on=trained_on.reason.rstrip("."),
    )


def _of_gguf(file: Path, beside: Path) -> KnownModel:
    from backends.llama_cpp.gguf_header import Unreadable, chat_facts, shape

    try:
        length, facts = shape(file).context_length, chat_facts(file)
    except OSError as exc:
        raise RegistrationError(f"'{file}' cannot be read: {exc.strerror}") from exc
    except Unreadable as exc:
        raise RegistrationError(f"'{file}' cannot be used: {exc}") from exc
    ends: list[Any] = [facts.eos, "<|im_end|>" if "<|im_end|>" in (facts.chat_template or "") else None]
    stops = tuple(dict.fromkeys(each for each in ends if each))
    return KnownModel(
        files=_names(beside),
        context_length=length or None,
        stops=stops,
        takes_tools="tools" in (facts.chat_template or ""),
    )


def _hidden_ggufs(folder: Path) -> frozenset[str]:
    """The names of GGUF files that do not end so."""
    hidden = set()
    for name in _names(folder):
        if name.endswith(".gguf"):
            continue
        with contextlib.suppress(OSError):
            path = folder / name
            if path.is_file():
                with path.open("rb") as file:
                    hidden |= {name} if file.read(len(MAGIC)) == MAGIC else set()
    return frozenset(hidden)


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 - names are wanted, no paths
    except OSError as exc:
        raise RegistrationError(f"'{folder}' cannot be read: {exc.strerror}") from exc
