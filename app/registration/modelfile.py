"""A Modelfile as an Ollama daemon reads it: parsed, and written so that the daemon reads the same again. Pure.

The grammar is that of the daemon's own parser: a command's name in any case, a blank, its value. A value ends with its
line; one that begins with a quote, or with three, ends with the line that closes them, and nothing inside is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

COMMANDS: Final = ("from", "template", "system", "parameter", "adapter", "message", "license", "renderer", "parser")
_MORE: Final = ("requires",)  # of newer daemons
ROLES: Final = ("system", "user", "assistant")
# The daemon's parameters, and how it reads each.
PARAMETERS: Final = {
    **dict.fromkeys(("num_keep", "seed", "num_predict", "top_k", "repeat_last_n", "num_ctx", "num_batch"), int),
    **dict.fromkeys(("num_gpu", "main_gpu", "num_thread", "draft_num_predict"), int),
    **dict.fromkeys(("top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty"), float),
    **dict.fromkeys(("frequency_penalty",), float),
    "use_mmap": bool,
    "stop": str,
}
# Those that older daemons had; newer ones ignore them with a warning.
RETIRED: Final = ("mirostat", "mirostat_eta", "mirostat_tau", "tfs_z", "penalize_newline", "low_vram", "f16_kv", "numa")
_RETIRED_TOO: Final = ("logits_all", "vocab_only", "use_mlock", "embedding_only", "num_gqa")
_NAME: Final = re.compile(r"[A-Za-z]+")
_KEY: Final = re.compile(r"[A-Za-z0-9_]+")


class ModelfileError(Exception):
    """The daemon would refuse the text. The message says why; `line` is where, counted from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


@dataclass(frozen=True, slots=True)
class Instruction:
    """One command. `name` in lower case; `key`: of a parameter its name, of a message its role, else empty."""

    name: str
    value: str
    line: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True)
class Modelfile:
    """What a Modelfile says, in its own order."""

    instructions: tuple[Instruction, ...]

    def first(self, name: str) -> Instruction | None:
        """The first of this name, as the daemon takes FROM."""
        return next((each for each in self.instructions if each.name == name), None)

    def last(self, name: str) -> Instruction | None:
        """The last of this name: of TEMPLATE and SYSTEM it is the one that counts."""
        return next((each for each in reversed(self.instructions) if each.name == name), None)

    def parameter(self, key: str) -> tuple[Instruction, ...]:
        """Every PARAMETER of this name: of `stop` all count, of the others the last."""
        return tuple(each for each in self.instructions if each.name == "parameter" and each.key == key)

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        return tuple(each.value for each in self.parameter("stop"))


def is_retired(key: str) -> bool:
    """Whether it is a parameter that only old daemons had."""
    return key in RETIRED or key in _RETIRED_TOO


def parse(text: str) -> Modelfile:
    """What the text says. ModelfileError where the daemon would refuse it, also when it has no FROM."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    at, instructions = 0, []
    while at < len(text):
        if text[at] in " \t\n":
            at += 1
        elif text[at] == "#":
            at = _line_end(text, at)
        else:
            instruction, at = _instruction(text, at)
            instructions.append(instruction)
    if not any(each.name == "from" for each in instructions):
        raise ModelfileError(1, "there is no FROM: nothing says which weights the model has")
    return Modelfile(tuple(instructions))


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _instruction(text: str, at: int) -> tuple[Instruction, int]:
    line = text.count("\n", 0, at) + 1
    word = _NAME.match(text, at)
    name = word[0].lower() if word is not None else ""
    if word is None or name not in (*COMMANDS, *_MORE) or text[word.end() : word.end() + 1] not in (" ", "\t"):
        shown = text[at : _line_end(text, at)].split()[0][:40]
        raise ModelfileError(line, f"'{shown}' is not a command (there are {', '.join(COMMANDS).upper()})")
    at, key = word.end() + 1, ""
    if name in ("parameter", "message"):
        while text[at : at + 1] in (" ", "\t"):
            at += 1
        inner = _KEY.match(text, at)
        if inner is None or text[inner.end() : inner.end() + 1] not in (" ", "\t"):
            what = "a parameter's name" if name == "parameter" else "a role"
            raise ModelfileError(line, f"{name.upper()} needs {what} and a value")
        at, key = inner.end() + 1, inner[0]
        if name == "message" and key not in ROLES:
            raise ModelfileError(line, f"'{key}' is not a role ({', '.join(ROLES)})")
    value, at = _value(text, at, line)
    return Instruction(name, value, line, key), at


def _value(text: str, at: int, line: int) -> tuple[str, int]:
    end = at
    while True:
        end = _line_end(text, end)
        inner = _unquoted(text[at:end].strip())
        if inner is not None:
            return inner, end
        if end == len(text):
            raise ModelfileError(line, "the quotes of its value are never closed")
        end += 1


def _unquoted(value: str) -> str | None:
    """The value without its quotes; None while they are open."""
    for quotes in ('"""', '"'):
        if value.startswith(quotes):
            is_closed = len(value) >= 2 * len(quotes) and value.endswith(quotes)
            return value[len(quotes) : -len(quotes)] if is_closed else None
    return value


def quoted(value: str) -> str:
    """The value so that the daemon reads it as it is. ValueError for the few texts that no Modelfile can hold."""
    bare = value.strip()
    if value == bare and value and "\n" not in value and not value.startswith('"'):
        return value
    for form in (f'"{value}"', f'"""{value}"""'):
        if _reads_back(form, value):
            return form
    raise ValueError(f"a Modelfile cannot hold this text: {value[:60]!r}")


def _reads_back(form: str, value: str) -> bool:
    try:
        return _value(f"{form}\n", 0, 1) == (value, len(form))
    except ModelfileError:
        return False


def render(instructions: Iterable[Instruction], comments: Sequence[str] = ()) -> str:
    """The text of a Modelfile with these instructions, `comments` before them. ValueError as `quoted`."""
    lines = [f"# {comment}" for comment in comments]
    for each in instructions:
        value = f'"""{each.value}"""' if each.name == "template" else _written(each)
        lines.append(" ".join(filter(None, (each.name.upper(), each.key, value))))
    text = "\n".join(lines) + "\n"
    if [(i.name, i.key, i.value) for i in parse(text).instructions] != [(i.name, i.key, i.value) for i in instructions]:
        raise ValueError("a Modelfile cannot hold these texts: one of them ends a line with quotes")
    return text


def _written(each: Instruction) -> str:
    if each.name == "parameter" and each.key == "stop":
        return f'"{each.value}"' if _reads_back(f'"{each.value}"', each.value) else quoted(each.value)
    return quoted(each.value)
