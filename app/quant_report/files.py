"""The files that are compared: the unquantised GGUF and its quantised forms, made where they are not there yet."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.conversion.convert import convert
from app.conversion.model_folder import read_model_folder
from app.conversion.progress import ProgressReport
from app.conversion.quantize import quantize
from app.conversion.room import OUTTYPES
from app.quant_report.work_folder import MadeFiles, ReportProblem
from backends.llama_cpp.gguf_contents import GgufContents, read_contents
from backends.llama_cpp.gguf_header import Unreadable
from backends.toolenv.environment import Toolbox

_UNQUANTIZED: Final = {"BF16": "bf16", "F16": "f16", "F32": "f32"}
_TEMPLATE: Final = "tokenizer.chat_template"
_EMBEDDING: Final = "token_embd.weight"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One GGUF file, and what it is called in the report: the type of most of its weights, or its own name."""

    name: str
    path: Path
    size_bytes: int
    contents: GgufContents

    @property
    def vocabulary(self) -> int:
        """How many tokens the model knows; 0 where its tensors have uncommon names."""
        embedding = self.contents.tensors.get(_EMBEDDING)
        return embedding.shape[-1] if embedding is not None else 0

    @property
    def context_length(self) -> int | None:
        """For how many tokens the model was made; None where the file does not say."""
        architecture = self.contents.metadata.get("general.architecture")
        value = self.contents.metadata.get(f"{architecture}.context_length")
        return value if isinstance(value, int) and value > 0 else None

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations are rendered by a template of the model's own."""
        return bool(self.contents.metadata.get(_TEMPLATE))

    @property
    def is_quantized(self) -> bool:
        """Whether most of its weights are quantised."""
        return _main_type(self.contents) not in _UNQUANTIZED


def is_file(quant: str) -> bool:
    """Whether a GGUF file is meant, not a type."""
    return quant.lower().endswith(".gguf")


def check_types(quants: Sequence[str]) -> None:
    """Raises ReportProblem for what is neither a type that can be made nor a GGUF file."""
    for quant in quants:
        if not is_file(quant) and quant not in OUTTYPES:
            near = difflib.get_close_matches(quant, OUTTYPES, 1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise ReportProblem(f"'{quant}' is not a type of weights here: {meant}known are {', '.join(OUTTYPES)}")


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the files of one source in the folder `out`, with tool environments; `stem` begins their names. What is
    there already from the same source is taken as it is.
    """

    source: Path
    out: Path
    toolbox: Toolbox
    progress: ProgressReport
    base: Path | None = None
    trust_remote_code: bool = False

    @property
    def stem(self) -> str:
        """What the model is called."""
        path = self.source.resolve()
        return path.stem if path.is_file() else path.name

    def reference(self) -> ModelFile:
        """The unquantised file: the source itself where it is a GGUF, else converted in the type of its weights. Raises
        ReportProblem, ConversionError, ToolError.
        """
        if self.source.is_file():
            return opened(self.source)
        folder = read_model_folder(self.source)
        outtype = "bf16" if folder.is_adapter else _UNQUANTIZED.get(folder.dtype or "", "bf16")
        out = self.out / f"{self.stem}-{outtype}.gguf"
        with MadeFiles(self.out).making(out, str(self.source)):
            convert(
                self.source,
                outtype,
                out,
                self.toolbox,
                self.progress,
                base=self.base,
                trust_remote_code=self.trust_remote_code,
                replace=True,
            )
        return opened(out, outtype)

    def quantised(self, reference: ModelFile, source: str, quant: str) -> ModelFile:
        """The reference, whose digest is `source`, as `quant`: a type ("q4_k_m"), or a GGUF file that is there already.
        Raises as above.
        """
        if is_file(quant):
            path = Path(quant).expanduser()
            return opened(path, path.stem)
        out = self.out / f"{self.stem}-{quant}.gguf"
        made = MadeFiles(self.out)
        if not out.exists() or made.source(out) != source:
            with made.making(out, source):
                quantize(reference.path, quant, out, self.toolbox, self.progress, replace=True)
        return opened(out, quant)


def opened(path: Path, name: str | None = None) -> ModelFile:
    """A GGUF file that is there. Raises ReportProblem. Blocks."""
    try:
        contents = read_contents(path)
        return ModelFile(name or _main_type(contents).lower(), path, path.stat().st_size, contents)
    except Unreadable as exc:
        raise ReportProblem(f"'{path}' cannot be used: {exc}") from exc
    except OSError as exc:
        raise ReportProblem(f"'{path}' cannot be read: {exc.strerror or exc}") from exc


def check_comparable(reference: ModelFile, others: Sequence[ModelFile]) -> None:
    """Raises ReportProblem for a file that cannot be a form of the reference: it has other numbers of tokens or
    parameters.
    """
    for each in others:
        if each.contents.parameters != reference.contents.parameters or each.vocabulary != reference.vocabulary:
            raise ReportProblem(
                f"'{each.path.name}' is not a form of '{reference.path.name}': it has {each.contents.parameters:,} "
                f"parameters and {each.vocabulary:,} tokens, not {reference.contents.parameters:,} and "
                f"{reference.vocabulary:,}"
            )


def _main_type(contents: GgufContents) -> str:
    sizes: Counter[str] = Counter()
    for tensor in contents.tensors.values():
        sizes[tensor.type] += tensor.parameters
    return sizes.most_common(1)[0][0] if sizes else "GGUF"
