"""Renders the Go templates of Modelfiles as an Ollama daemon does, as far as they are of the usual pieces. Pure.

Source: Go's text/template (actions, pipelines, variables, trimming), and what the daemon hands in: `.Messages`,
`.System`, `.Tools`, and of old templates `.Prompt` and `.Response`. Anything else is `NotRendered`, never guessed.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_ACTION: Final = re.compile(r'\{\{(- )?((?:"(?:\\.|[^"\\])*"|`[^`]*`|/\*.*?\*/|(?!\}\}).)*?)( -)?\}\}', re.DOTALL)
_TOKEN: Final = re.compile(
    r'\s*(?:(?P<text>"(?:\\.|[^"\\])*")|(?P<raw>`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<field>(?:\$\w*)?(?:\.\w+)+|\$\w*|\.)'
    r"|(?P<word>\w+)|(?P<sign>:=|[=|(),]))"
)


class NotRendered(Exception):
    """The template uses what is not known here, or is no template. The message says what."""


@dataclass(slots=True)
class _Block:
    """`if`, `with` and `range` with their two branches; the whole template is one without an `opener`."""

    opener: str = ""
    words: list[str] = field(default_factory=list)
    body: list[Any] = field(default_factory=list)
    other: list[Any] = field(default_factory=list)
    is_other: bool = False

    @property
    def open_branch(self) -> list[Any]:
        return self.other if self.is_other else self.body


class GoTemplate:
    """One template. NotRendered where it cannot be read."""

    def __init__(self, source: str) -> None:
        self._root = _parse(source)
        self.fields = frozenset(re.findall(r"\.([A-Z]\w*)", " ".join(m[2] for m in _ACTION.finditer(source))))

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt of a chat, each message with `role` and `content`, up to where the answer begins."""
        turns = _joined(messages)
        system = "\n\n".join(str(each["content"]) for each in messages if each["role"] == "system")
        if "Messages" in self.fields:
            values = [{"Role": each["role"], "Content": each["content"]} for each in turns]
            return self._render({"Messages": values, "System": system, "Prompt": "", "Response": ""})
        return self._old(turns)

    def _old(self, turns: Sequence[Mapping[str, Any]]) -> str:
        """A template of one turn is rendered turn by turn, the last one up to `.Response`."""
        said = {"System": "", "Prompt": "", "Response": ""}
        parts = []
        names = {"system": "System", "user": "Prompt", "assistant": "Response"}
        for turn in turns:
            name = names[turn["role"]]
            is_full = said["Response"] or (name == "System" and said["Prompt"])
            if is_full:
                parts.append(self._render(said))
                said = {"System": "", "Prompt": "", "Response": ""}
            said[name] = str(turn["content"])
        parts.append(self._render(said, stop=not said["Response"]))
        return "".join(parts)

    def _render(self, values: Mapping[str, Any], *, stop: bool = False) -> str:
        out: list[str] = []
        with contextlib.suppress(_Answer):
            _run(self._root.body, values, {"$": values}, out, stop=stop)
        return "".join(out)


class _Answer(Exception):
    """Here the answer begins: nothing behind it belongs to the prompt."""


def _joined(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages of one role that follow each other are one to the daemon."""
    turns: list[dict[str, Any]] = []
    for each in messages:
        if turns and turns[-1]["role"] == each["role"] and each["role"] != "tool":
            turns[-1]["content"] = f"{turns[-1]['content']}\n\n{each['content']}"
        else:
            turns.append({"role": each["role"], "content": each["content"]})
    return turns


def _parse(source: str) -> _Block:
    stack, at, trims = [_Block()], 0, False
    for match in _ACTION.finditer(source):
        _add_text(stack[-1], source[at : match.start()], trims, bool(match[1]))
        at, trims = match.end(), bool(match[3])
        inside = match[2].strip()
        if not inside.startswith("/*"):
            _take(stack, inside)
    rest = source[at:]
    if "{{" in rest:
        raise NotRendered("an action is never closed with }}")
    _add_text(stack[-1], rest, trims, False)
    if len(stack) > 1:
        raise NotRendered(f"{{{{ {stack[-1].opener} }}}} is never ended")
    return stack[0]


def _add_text(block: _Block, text: str, trims_left: bool, trims_right: bool) -> None:
    text = text.lstrip() if trims_left else text
    text = text.rstrip() if trims_right else text
    if text:
        block.open_branch.append(text)


def _take(stack: list[_Block], inside: str) -> None:
    words = _tokens(inside)
    head = words[0] if words else ""
    if head in ("if", "with", "range"):
        block = _Block(head, words[1:])
        stack[-1].open_branch.append(block)
        stack.append(block)
    elif head == "else" and len(stack) > 1:
        stack[-1].is_other = True
        if words[1:2] in (["if"], ["with"]):
            inner = _Block(f"else {words[1]}", words[2:])
            stack[-1].other.append(inner)
            stack.append(inner)
    elif head == "end" and len(stack) > 1:
        while stack.pop().opener.startswith("else"):
            pass
    elif head in ("else", "end", "define", "template", "block", "break", "continue", ""):
        raise NotRendered(f"{{{{ {inside[:40]} }}}} is not known here")
    else:
        stack[-1].open_branch.append(words)


def _tokens(inside: str) -> list[str]:
    words, at = [], 0
    while inside[at:].strip():
        match = _TOKEN.match(inside, at)
        if match is None:
            raise NotRendered(f"{{{{ {inside[:40]} }}}} cannot be read")
        words.append(match[0].strip())
        at = match.end()
    return words


def _run(nodes: Sequence[Any], dot: Any, names: dict[str, Any], out: list[str], *, stop: bool) -> None:
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
        elif isinstance(node, _Block):
            _run_block(node, dot, names, out, stop=stop)
        elif node == [".Response"] and stop:
            raise _Answer
        else:
            value, is_assignment = _statement(node, dot, names)
            if not is_assignment:
                out.append(_shown(value))


def _run_block(block: _Block, dot: Any, names: dict[str, Any], out: list[str], *, stop: bool) -> None:
    kind = block.opener.removeprefix("else ")
    if kind == "range":
        _run_range(block, dot, names, out, stop=stop)
        return
    value, _ = _statement(block.words, dot, names)
    branch = block.body if _is_true(value) else block.other
    _run(branch, value if kind == "with" and _is_true(value) else dot, names, out, stop=stop)


def _run_range(block: _Block, dot: Any, names: dict[str, Any], out: list[str], *, stop: bool) -> None:
    words, called = block.words, []
    if ":=" in words:
        at = words.index(":=")
        called = [word for word in words[:at] if word != ","]
        words = words[at + 1 :]
    values, _ = _statement(words, dot, names)
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise NotRendered(f"{{{{ range {' '.join(words)} }}}} is no list here")
    if not values:
        _run(block.other, dot, names, out, stop=stop)
    for index, value in enumerate(values):
        names.update(zip(called, (index, value) if len(called) == 2 else (value,), strict=False))
        _run(block.body, value, names, out, stop=stop)


def _statement(words: Sequence[str], dot: Any, names: dict[str, Any]) -> tuple[Any, bool]:
    if len(words) > 2 and words[1] in (":=", "=") and words[0].startswith("$"):
        names[words[0]] = _pipeline(words[2:], dot, names)
        return None, True
    return _pipeline(words, dot, names), False


def _pipeline(words: Sequence[str], dot: Any, names: Mapping[str, Any]) -> Any:
    value, piped = None, False
    for part in _split(words):
        value = _command(part, dot, names, (value,) if piped else ())
        piped = True
    return value


def _split(words: Sequence[str]) -> list[list[str]]:
    parts, depth = [[]], 0  # type: list[list[str]], int
    for word in words:
        depth += (word == "(") - (word == ")")
        if word == "|" and not depth:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _command(words: Sequence[str], dot: Any, names: Mapping[str, Any], piped: tuple[Any, ...]) -> Any:
    if not words:
        raise NotRendered("an empty action")
    function = _FUNCTIONS.get(words[0])
    rest = words[1:] if function is not None else words
    values, at = [], 0
    while at < len(rest):
        end = _closing(rest, at) if rest[at] == "(" else at
        if end > at:
            values.append(_pipeline(rest[at + 1 : end], dot, names))
        else:
            values.append(_operand(rest[at], dot, names))
        at = end + 1
    if function is not None:
        try:
            return function(*values, *piped)
        except (TypeError, IndexError, KeyError) as exc:
            raise NotRendered(f"`{words[0]}` cannot be worked out ({exc})") from exc
    if len(values) != 1 or piped:
        raise NotRendered(f"`{' '.join(words)[:40]}` is not known here")
    return values[0]


def _closing(words: Sequence[str], at: int) -> int:
    depth = 0
    for index in range(at, len(words)):
        depth += (words[index] == "(") - (words[index] == ")")
        if not depth:
            return index
    raise NotRendered("a ( is never closed")


def _operand(word: str, dot: Any, names: Mapping[str, Any]) -> Any:
    if word.startswith('"'):
        return json.loads(word, strict=False)
    if word.startswith("`"):
        return word[1:-1]
    if word in ("true", "false", "nil"):
        return {"true": True, "false": False, "nil": None}[word]
    if re.fullmatch(r"-?\d+(\.\d+)?", word):
        return float(word) if "." in word else int(word)
    if not word.startswith((".", "$")):
        raise NotRendered(f"the function `{word}` is not known here")
    first, *path = word.split(".")
    if first and first not in names:
        raise NotRendered(f"{first} is not set")
    value = names[first] if first else dot
    for key in filter(None, path):
        # What the daemon hands in and a chat without tools does not have is empty.
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _is_true(value: Any) -> bool:
    return bool(value)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else str(value)


def _same(first: Any, *others: Any) -> bool:
    return any(first == other for other in others)


def _slice(value: Any, start: int = 0, end: int | None = None) -> Any:
    return value[start : len(value) if end is None else end]


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value[key]
    return value


def _format(form: str, *values: Any) -> str:
    return re.sub(r"%[svdq]", "%s", form) % tuple(_shown(value) for value in values)


def _and(*values: Any) -> Any:
    return next((value for value in values if not _is_true(value)), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if _is_true(value)), values[-1])


_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "and": _and,
    "or": _or,
    "not": lambda value: not _is_true(value),
    "eq": _same,
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "len": lambda value: len(value or ()),
    "index": _index,
    "slice": _slice,
    "print": lambda *values: "".join(map(_shown, values)),
    "printf": _format,
    "json": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    "toJson": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
}
