"""What is made ready before the engine starts: the model's facts, the template it was trained with, its stop tokens.

Files go into the state folder, named by their content, so that no two starts disturb each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from app.conversion.errors import ConversionError
from app.conversion.model_folder import read_model_folder
from app.llamafactory.arguments import Arguments, BadArguments
from app.llamafactory.configuration import ServedParts
from app.llamafactory.engine_choice import FineTune, paths
from app.llamafactory.yaml_text import as_yaml
from app.reference.reference import Interpreters, Reference, ReferenceProblem, reference
from app.whole_file import write_whole

# What a training file says of the prompts.
_OF_PROMPTS: Final = ("template", "default_system", "tool_format", "enable_thinking", "preserve_thinking")
_FOLDER: Final = "served"
# How a template writes calls → the parser of vLLM's that reads them. The first that occurs counts.
_PARSERS: Final = (
    ("<function=", "qwen3_coder"),
    ("<arg_key>", "glm45"),
    ("<tool_call>", "hermes"),
    ("[TOOL_CALLS]", "mistral"),
    ("<|python_tag|>", "llama3_json"),
    ('{"name": "weather", "parameters"', "llama3_json"),
)


@dataclass(frozen=True, slots=True)
class ServedTemplate:
    """How prompts are made. `file`: Jinja in place of the model's own; `generation_config`: a folder with all stop
    tokens; `stop_tokens`: their texts; `stops`: texts that end an answer beside these; `tool_parser`: of vLLM's, for
    calls as this template writes them; `adds_bos`: whether an engine that reads a GGUF file puts the first token before
    each text, None: as the tokenizer says; `notes`: sentences for the user.
    """

    file: Path | None = None
    generation_config: Path | None = None
    stops: tuple[str, ...] = ()
    stop_tokens: tuple[str, ...] = ()
    tool_parser: str | None = None
    adds_bos: bool | None = None
    notes: tuple[str, ...] = ()


def fine_tune(arguments: Arguments) -> FineTune:
    """What the model's and the adapter's folders tell. BadArguments where one is named that is not there. Blocks."""
    path = local(arguments["model_name_or_path"])
    adapters = adapter_folders(arguments)
    is_gguf = path is not None and path.is_file() and path.suffix.lower() == ".gguf"
    if path is not None and path.is_file() and not is_gguf:
        raise BadArguments(f"--model_name_or_path: '{path}' is a file and not a GGUF file: name the model's folder")
    for adapter in adapters:
        if (folder := local(adapter)) is not None and not (folder / "adapter_config.json").is_file():
            raise BadArguments(f"--adapter_name_or_path: '{adapter}' is not an adapter: it has no adapter_config.json")
    config = _json(path / "config.json") if path is not None and path.is_dir() else {}
    if path is not None and path.is_dir() and not config and (path / "adapter_config.json").is_file():
        base = _json(path / "adapter_config.json").get("base_model_name_or_path")
        raise BadArguments(
            f"--model_name_or_path: '{path}' is an adapter (LoRA): it belongs to --adapter_name_or_path, and "
            f"--model_name_or_path names its base{f' ({base})' if isinstance(base, str) and base else ''}"
        )
    if path is not None and path.is_dir() and not config:
        raise BadArguments(f"--model_name_or_path: '{path}' is not a model's folder: it has no config.json")
    ranks = [_json(Path(adapter) / "adapter_config.json").get("r") for adapter in adapters]
    known = [rank for rank in ranks if isinstance(rank, int)]
    return FineTune(is_gguf, path is not None, config, max(known, default=None))


def local(name: str) -> Path | None:
    """The folder or file of this name on this machine; None for a name on the hub. BadArguments for a path that leads
    nowhere.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path.absolute()
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise BadArguments(f"'{name}' is not there: check --model_name_or_path and --adapter_name_or_path")
    return None


def adapter_folders(arguments: Arguments) -> tuple[str, ...]:
    """The adapters' folders, or their names on the hub."""
    inner = arguments["adapter_folder"]
    named = [str(Path(name) / inner) if inner else name for name in paths(arguments["adapter_name_or_path"])]
    return tuple(str(local(name) or name) for name in named)


def served_template(arguments: Arguments, state: Path, toolbox: Interpreters, *, is_embedded: bool) -> ServedTemplate:
    """What `--template` and the flags beside it mean for the prompts. BadArguments where that cannot be served. Blocks:
    a child process renders with LLaMA-Factory's own code.
    """
    folder = local(arguments["model_name_or_path"])
    asked = {name: arguments.values[name] for name in _OF_PROMPTS if name in arguments.values}
    if not asked:
        notes = ("template: the tokenizer's own, as no --template names another",)
        return ServedTemplate(tool_parser=tool_parser(_own_template(folder)), notes=notes)
    words = ", ".join(f"--{name}" for name in asked)
    if folder is None or folder.is_file():
        what = "a GGUF file" if folder is not None else "a model of the hub"
        return ServedTemplate(notes=(f"{words}: not compared, as this is {what}; its own template is served",))
    training = write(state, as_yaml({"stage": "sft", **asked}), ".yaml")
    try:
        trained = reference(folder, toolbox, template=asked.get("template"), training=training)
    except ReferenceProblem as exc:
        raise BadArguments(f"{words}: {exc}. Without these flags the tokenizer's own template is served") from exc
    return of_reference(trained, folder, state, is_embedded=is_embedded)


def served_parts(parts: ServedParts, template: ServedTemplate) -> ServedParts:
    """The parts with what the template needs."""
    return replace(
        parts,
        chat_template=str(template.file) if template.file is not None else None,
        generation_config=str(template.generation_config) if template.generation_config is not None else None,
        stops=template.stops,
        tool_parser=template.tool_parser,
    )


def of_reference(trained: Reference, folder: Path, state: Path, *, is_embedded: bool) -> ServedTemplate:
    """What is served for a reference, as files in the state folder."""
    name = f"template {trained.template}" if trained.template is not None else "template: the tokenizer's own"
    file = None
    if trained.chat_template is None:
        notes = [f"{name}: the tokenizer's own says the same, and is served"]
    else:
        file = write(state, trained.chat_template, ".jinja")
        why = f" ({trained.own_difference})" if trained.own_difference is not None else ""
        notes = [f"{name}: differs from the tokenizer's own{why}; served is {file}"]
    if not trained.serves_tools:
        notes.append(f"tools: {trained.tools_difference or 'are not written as in training'}")
    if trained.default_system:
        notes.append(f"without a system prompt it is {json.dumps(trained.default_system, ensure_ascii=False)}")
    generation = None if is_embedded else _generation_config(folder, state, trained.stop_ids.values())
    texts = tuple(stop for stop in trained.stops if stop not in trained.stop_ids)
    tokens = tuple(stop for stop in trained.stops if stop in trained.stop_ids)
    parser = tool_parser(trained.rendered.get("tool result", "")) if trained.serves_tools else None
    return ServedTemplate(file, generation, texts, tokens, parser, trained.gguf_adds_bos, (*notes, *trained.notes))


def tool_parser(text: str) -> str | None:
    """The parser of vLLM's for calls that are written as in this prompt or template; None where none is known."""
    return next((parser for mark, parser in _PARSERS if mark in text), None)


def _own_template(folder: Path | None) -> str:
    if folder is None or not folder.is_dir():
        return ""
    try:
        return read_model_folder(folder).chat_template or ""
    except ConversionError:
        return ""  # vLLM may take what cannot be converted


def _generation_config(folder: Path, state: Path, stop_ids: Iterable[int]) -> Path | None:
    """A folder with the model's generation_config.json in which every stop token ends an answer; None where the
    model's own says so already.
    """
    own = _json(folder / "generation_config.json")
    named = own.get("eos_token_id", _json(folder / "config.json").get("eos_token_id"))
    before = [each for each in (named if isinstance(named, list) else [named]) if isinstance(each, int)]
    after = list(dict.fromkeys([*before, *stop_ids]))
    if set(after) <= set(before):
        return None
    text = json.dumps({**own, "eos_token_id": after}, indent=2, sort_keys=True)
    target = state / _FOLDER / f"generation-{_digest(text)}"
    _write(target / "generation_config.json", text)
    return target


def write(state: Path, text: str, suffix: str) -> Path:
    """A file in the state folder with this text, named by it."""
    path = state / _FOLDER / f"{_digest(text)}{suffix}"
    _write(path, text)
    return path


def _write(path: Path, text: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError as exc:
        raise BadArguments(
            f"{path.parent} cannot be written: {exc.strerror or exc}; choose another with --state"
        ) from exc


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
