"""The text that models are measured on: from training data (Alpaca, ShareGPT, messages; JSON or JSONL) or plain text.

Pure but for `read`. Records that cannot be used are counted, and the first of them is told; a text in which nothing can
be used is a TextProblem.
"""

from __future__ import annotations

import codecs
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DEFAULT_TEXT: Final = Path(__file__).with_name("default_text.txt")
_SHUFFLED: Final = 20_261_127  # the order in which conversations are taken when not all are
_ROLES: Final = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "observation": "tool",
    "function_call": "call",
}

Message = Mapping[str, Any]


class TextProblem(Exception):
    """The text cannot be used; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text of its own: a conversation in OpenAI's shape, or where there are no `messages`, plain `text`."""

    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class EvalText:
    """All passages in the order in which they are taken. `kind`: what was read, in words. `skipped` records could not
    be used, the first one for the reason in `first_skipped`.
    """

    name: str
    kind: str
    passages: tuple[Passage, ...]
    skipped: int = 0
    first_skipped: str = ""


class _Unusable(Exception):
    """A record has none of the known shapes."""


def read(path: Path | None) -> EvalText:
    """The text in a file; None: the one that comes with us. Raises TextProblem. Blocks."""
    if path is None:
        return EvalText("the text that comes with Modelport", "text", (Passage(text=DEFAULT_TEXT.read_text("utf-8")),))
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise TextProblem(f"'{path}' cannot be read: {exc.strerror or exc}") from exc
    return parse(path.name, data)


def parse(name: str, data: bytes) -> EvalText:
    """The text in a file's bytes; its name tells the format where the content does not."""
    text = _decoded(name, data)
    if not text.strip():
        raise TextProblem(f"'{name}' is empty: a text of 2,000 tokens or more tells something")
    suffix = Path(name).suffix.lower()
    if suffix in (".txt", ".md", ".rst") or not (suffix in (".json", ".jsonl", ".ndjson") or text.lstrip()[0] in "[{"):
        return EvalText(name, "text", (Passage(text=text),))
    records = list(_records(name, text, suffix))
    return _collected(name, records)


def _decoded(name: str, data: bytes) -> str:
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        return data.decode(encoding).replace("\r\n", "\n")
    except ValueError as exc:
        raise TextProblem(f"'{name}' is not text in UTF-8: {exc}") from exc


def _records(name: str, text: str, suffix: str) -> Iterator[tuple[str, Any]]:
    """Each record with its place; a _Unusable stands for a line that is not JSON."""
    if suffix not in (".jsonl", ".ndjson"):
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError) as exc:
            if suffix == ".json" and not _is_lines(text):
                raise TextProblem(f"'{name}' is not JSON: {exc}") from exc
        else:
            items = whole if isinstance(whole, list) else [whole]
            yield from ((f"record {index}", item) for index, item in enumerate(items, 1))
            return
    for index, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"line {index}", json.loads(line)
            except (ValueError, RecursionError):
                yield f"line {index}", _Unusable("it is not JSON")


def _is_lines(text: str) -> bool:
    """Whether the first line is a JSON value by itself, as in JSONL."""
    try:
        return isinstance(json.loads(text.strip().split("\n")[0]), dict)
    except ValueError:
        return False


def _collected(name: str, records: Sequence[tuple[str, Any]]) -> EvalText:
    passages, kinds, skipped, first = [], [], 0, ""
    for place, record in records:
        try:
            if isinstance(record, _Unusable):
                raise record
            kind, passage = _passage(record)
        except _Unusable as exc:
            skipped += 1
            first = first or f"{place}: {exc}"
            continue
        kinds.append(kind)
        passages.append(passage)
    if not passages:
        reason = f" ({first})" if first else ""
        raise TextProblem(
            f"'{name}' has no record that can be used{reason}: each has to be an Alpaca record (instruction, output), "
            "a ShareGPT one (conversations), an OpenAI one (messages), or to have a text"
        )
    # Files are often sorted by subject or source, and only the first tokens are taken.
    random.Random(_SHUFFLED).shuffle(passages)  # noqa: S311 - an order, not a secret
    kind = max(set(kinds), key=kinds.count) if len(set(kinds)) == 1 else "mixed records"
    return EvalText(name, kind, tuple(passages), skipped, first)


def _passage(record: Any) -> tuple[str, Passage]:
    if isinstance(record, str):
        record = {"text": record}
    if not isinstance(record, dict):
        raise _Unusable(f"it is {type(record).__name__}, not an object")
    if isinstance(turns := record.get("conversations") or record.get("conversation"), list):
        return "ShareGPT", _chat(turns, record)
    if isinstance(turns := record.get("messages"), list):
        return "messages", _chat(turns, record)
    if "instruction" in record:
        return "Alpaca", _alpaca(record)
    for asked, answered in (("prompt", "completion"), ("prompt", "response"), ("query", "response")):
        if isinstance(record.get(asked), str) and isinstance(record.get(answered), str):
            return "prompts and responses", _turns([("user", record[asked]), ("assistant", record[answered])])
    if isinstance(text := record.get("text") or record.get("content"), str) and text.strip():
        return "texts", Passage(text=text)
    raise _Unusable(f"its members are {', '.join(sorted(map(str, record))[:6]) or 'none'}")


def _alpaca(record: Mapping[str, Any]) -> Passage:
    """LLaMA-Factory's reading: the input follows the instruction on a new line; history are earlier turns."""
    question, answer = record.get("instruction"), record.get("output")
    if not isinstance(question, str) or not isinstance(answer, str) or not answer.strip():
        raise _Unusable("instruction and output have to be texts")
    more = record.get("input")
    if isinstance(more, str) and more.strip():
        question = f"{question}\n{more}" if question else more
    turns: list[tuple[str, str]] = []
    if isinstance(system := record.get("system"), str) and system:
        turns.append(("system", system))
    for pair in record.get("history") or ():
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(each, str) for each in pair):
            raise _Unusable("its history is not a list of pairs")
        turns += [("user", pair[0]), ("assistant", pair[1])]
    return _turns([*turns, ("user", question), ("assistant", answer)])


def _turns(turns: Sequence[tuple[str, str]]) -> Passage:
    return Passage(messages=tuple({"role": role, "content": content} for role, content in turns))


def _chat(turns: Sequence[Any], record: Mapping[str, Any]) -> Passage:
    messages: list[Message] = []
    if isinstance(system := record.get("system"), str) and system:
        messages.append({"role": "system", "content": system})
    for turn in turns:
        if not isinstance(turn, dict):
            raise _Unusable("a turn is not an object")
        messages.append(_message(turn))
    if not any(message["role"] == "assistant" for message in messages):
        raise _Unusable("nobody answers in it")
    return Passage(tuple(messages), _tools(record.get("tools")))


def _message(turn: Mapping[str, Any]) -> Message:
    named = turn.get("from", turn.get("role"))
    role = _ROLES.get(named) if isinstance(named, str) else None
    content = turn.get("value", turn.get("content"))
    if role is None:
        raise _Unusable(f"a turn is from {named!r}")
    if role == "call":
        return _call(content)
    if role == "assistant" and isinstance(turn.get("tool_calls"), list):
        return {"role": role, "content": content if isinstance(content, str) else "", "tool_calls": turn["tool_calls"]}
    if not isinstance(content, str):
        raise _Unusable(f"a turn of {named!r} is not a text")
    return {"role": role, "content": content}


def _call(content: Any) -> Message:
    """LLaMA-Factory's turn "function_call": JSON `{name, arguments}`, or several of them."""
    try:
        value = json.loads(content) if isinstance(content, str) else content
        calls = [
            {"type": "function", "function": {"name": str(each["name"]), "arguments": json.dumps(each["arguments"])}}
            for each in (value if isinstance(value, list) else [value])
        ]
    except (ValueError, KeyError, TypeError) as exc:
        raise _Unusable("a function call is not JSON with name and arguments") from exc
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Tools, as a JSON text of function objects (LLaMA-Factory's) or as OpenAI's list."""
    try:
        value = json.loads(value) if isinstance(value, str) and value.strip() else value
    except ValueError as exc:
        raise _Unusable("its tools are not JSON") from exc
    tools = [each for each in value or () if isinstance(each, dict)] if isinstance(value, list) else []
    return tuple(each if "function" in each else {"type": "function", "function": each} for each in tools)


def plain(passage: Passage) -> Passage:
    """A conversation as plain text: what was said, with an empty line between."""
    if not passage.messages:
        return passage
    return Passage(text="\n\n".join(str(each["content"]) for each in passage.messages if each["content"]))
