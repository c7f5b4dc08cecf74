"""The weights as the engine takes them: adapters merged, folders converted, each once for the same inputs. Blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.conversion.convert import convert
from app.conversion.errors import ConversionError, NoPlace
from app.conversion.merge import merge
from app.conversion.progress import ProgressReport
from app.llamafactory.arguments import BadArguments
from app.llamafactory.engine_choice import EngineChoice
from app.llamafactory.prepare import ServedTemplate
from backends.huggingface.cache import in_words
from backends.toolenv.environment import Toolbox

_FOLDER: Final = "converted"


def made_weights(
    model: Path,
    adapters: Sequence[str],
    choice: EngineChoice,
    state: Path,
    toolbox: Toolbox,
    progress: ProgressReport,
    *,
    template: ServedTemplate,
    trust_remote_code: bool = False,
) -> tuple[Path, list[str]]:
    """The folder or the file for the engine, and what is to be said of it. `model`: a folder, or a GGUF file;
    `template`: what it says of tokens goes into a GGUF file. BadArguments or ToolError says why it cannot be had.
    """
    if model.is_file():
        return model, []
    place = state / _FOLDER
    is_embedded = choice.kind == "llama_cpp"
    # The converter merges one adapter itself, without a second copy of the model on the disk.
    last = adapters[-1] if adapters and is_embedded else None
    first = adapters[:-1] if last is not None else (adapters if choice.merges else ())
    notes = []
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        for adapter in first:
            model = _merged(Path(adapter), model, place, toolbox, progress, trust_remote_code=trust_remote_code)
            notes.append(f"adapter {adapter}: merged into {model}")
        if is_embedded:
            return _converted(
                model,
                last,
                choice.outtype,
                place,
                toolbox,
                progress,
                notes,
                template=template,
                trusts=trust_remote_code,
            )
    except NoPlace as exc:
        raise BadArguments(exc.elsewhere("choose another state folder with --state")) from exc
    except ConversionError as exc:
        raise BadArguments(f"{exc}") from exc
    except OSError as exc:
        raise BadArguments(f"{place} cannot be written: {exc.strerror or exc}; choose another with --state") from exc
    return model, notes


def _converted(
    model: Path,
    adapter: str | None,
    outtype: str,
    place: Path,
    toolbox: Toolbox,
    progress: ProgressReport,
    notes: list[str],
    *,
    template: ServedTemplate,
    trusts: bool,
) -> tuple[Path, list[str]]:
    source = model if adapter is None else Path(adapter)
    out = place / f"{source.name}-{_digest(str(model), str(source))}-{outtype}.gguf"
    made = convert(
        source,
        outtype,
        out,
        toolbox,
        progress,
        base=model if adapter is not None else None,
        eos=template.stop_tokens,
        adds_bos=template.adds_bos,
        trust_remote_code=trusts,
        replace=True,
    )
    what = f"{source}, merged into {model}" if adapter is not None else str(source)
    when = "found again" if made.was_there else f"made in {made.seconds:.0f} s"
    size = f"{in_words(made.size_bytes)}, {made.bits_per_weight:.2f} bits per weight"
    return made.path, [*notes, f"{made.path} ({size}): {when} from {what}", *made.remarks]


def _merged(
    adapter: Path,
    base: Path,
    place: Path,
    toolbox: Toolbox,
    progress: ProgressReport,
    *,
    trust_remote_code: bool,
) -> Path:
    """The merged model's folder, named by what it was made of."""
    files = [file for folder in (adapter, base) for file in sorted(folder.iterdir()) if file.is_file()]
    stamps = [f"{file}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files]
    out = place / f"{adapter.name}-merged-{_digest(*stamps)}"
    if not out.exists():
        merge(adapter, base, out, toolbox, progress, trust_remote_code=trust_remote_code)
    return out


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()[:8]
