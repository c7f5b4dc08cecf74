"""A training file of LLaMA-Factory's, YAML or JSON: what it says of prompts. Source: `hparams/data_args.py` of 0.9.5.

Everything else in it (hundreds of keys) is passed over, unknown keys too: only LLaMA-Factory knows them all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

_MOST_BYTES: Final = 1 << 20
_JSON: Final = ".json"
SUFFIXES: Final = (".yaml", ".yml", _JSON)
# What its board saves beside the training file has keys of its own.
_OF_BOARD: Final = {
    "top.template": "template",
    "train.cutoff_len": "cutoff_len",
    "train.enable_thinking": "enable_thinking",
    "train.resize_vocab": "resize_vocab",
}
# A file with one of these tells how a model was trained or exported, not something else.
_MARKS: Final = frozenset({"stage", "finetuning_type", "export_dir", "cutoff_len", "top.finetuning_type"})
_WORDS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class BadTraining(Exception):
    """The training file cannot be read: one sentence."""


class UnreadableTraining(BadTraining):
    """Nobody knows what is in it: the system does not let us read it."""


@dataclass(frozen=True, slots=True)
class Training:
    """What a training file says of prompts; what it does not say has LLaMA-Factory's default.

    `template`: None: made from the tokenizer's own. `default_system`: None: the template's; "" drops it. `outputs`:
    folders that it says a model is written to.
    """

    template: str | None = None
    default_system: str | None = None
    tool_format: str | None = None
    enable_thinking: bool | None = True
    preserve_thinking: bool = False
    cutoff_len: int | None = None
    added_tokens: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """For LLaMA-Factory's own code."""
        return {
            "default_system": self.default_system,
            "tool_format": self.tool_format,
            "enable_thinking": self.enable_thinking,
            "preserve_thinking": self.preserve_thinking,
        }


def read_training(file: Path) -> Training:
    """What a training file says. Raises BadTraining. Blocks."""
    members = _members(file)
    if members is None:
        raise BadTraining(f"{file} holds no settings of a training, but something else")
    return training(members, str(file))


def training_in(file: Path, *, is_own: bool = False) -> Training | None:
    """Likewise of a file that may be anything: None where it is not a training file. `is_own`: it lies in the model's
    own folder, so what it says must be known; UnreadableTraining where the system does not let us read it.
    """
    try:
        members = _members(file)
        if members is None or not _MARKS & members.keys() or not {"template", "top.template"} & members.keys():
            return None
        return training(members, str(file))
    except UnreadableTraining:
        if is_own:
            raise
        return None
    except BadTraining:
        return None


def training(members: Mapping[str, Any], name: str) -> Training:
    """The same of what is in a file; `name` is what errors call it. Raises BadTraining."""
    said = {_OF_BOARD.get(key, key): value for key, value in members.items()}

    def text(key: str) -> str | None:
        value = said.get(key)
        if value is not None and not isinstance(value, str):
            raise BadTraining(f"{name}: `{key}` is {value!r}, not a text")
        return value

    def switch(key: str, default: bool) -> bool | None:
        value = said.get(key, default)
        value = _WORDS.get(value.lower(), value) if isinstance(value, str) else value
        if value is not None and not isinstance(value, bool):
            raise BadTraining(f"{name}: `{key}` is {value!r}, not true or false")
        return value

    cut = said.get("cutoff_len")
    tokens = said.get("add_special_tokens")
    tokens = tokens.split(",") if isinstance(tokens, str) else tokens
    outputs = [said.get(key) for key in ("output_dir", "export_dir")]
    template = text("template")
    return Training(
        template=template.strip() or None if template is not None else None,
        default_system=text("default_system"),
        tool_format=text("tool_format") or None,
        enable_thinking=switch("enable_thinking", True),
        preserve_thinking=bool(switch("preserve_thinking", False)),
        cutoff_len=cut if isinstance(cut, int) and not isinstance(cut, bool) else None,
        added_tokens=tuple(str(token).strip() for token in tokens) if isinstance(tokens, list) else (),
        outputs=tuple(output for output in outputs if isinstance(output, str)),
    )


def _members(file: Path) -> dict[str, Any] | None:
    """The mapping in a file; None where it holds something else."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise BadTraining(f"{file} has more than {_MOST_BYTES >> 20} MiB; no training file has")
        text = file.read_text("utf-8-sig")
    except OSError as exc:
        raise UnreadableTraining(f"{file} cannot be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise BadTraining(f"{file} is not UTF-8 text") from exc
    try:
        value = json.loads(text) if file.suffix == _JSON else _yaml(text)
    except (json.JSONDecodeError, YAMLError, RecursionError, ValueError) as exc:
        first = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
        raise BadTraining(f"{file} cannot be read: {first}") from exc
    return {str(key): member for key, member in value.items()} if isinstance(value, dict) else None


def _yaml(text: str) -> Any:
    # LLaMA-Factory reads YAML 1.1, where `no` is false.
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 1)
    return reader.load(text)
