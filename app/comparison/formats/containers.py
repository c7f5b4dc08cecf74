"""A file's bytes as records with their places: JSON, JSON lines, tables (commas, tabs, semicolons), lines of text."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Final

from app.comparison.formats.record import Record

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_WRAPPERS: Final = ("data", "questions", "examples", "items", "rows")


class ContainerProblem(Exception):
    """The file is no list of records; the message says why and where, as the end of a sentence."""


def records(name: str, data: bytes) -> list[Record]:
    """Every record of a file in its order. What the file is, its content says; by its name only a list of lines is told
    from a table. Raises ContainerProblem.
    """
    text = _decoded(data)
    if not text.strip():
        raise ContainerProblem("is empty")
    if text.lstrip()[0] == "[":
        return list(_array(text))
    if text.lstrip()[0] == "{":
        return list(_objects(text))
    if PurePath(name).suffix.lower() == ".txt":
        lines = enumerate(text.split("\n"), 1)
        return [Record(f"line {number}", {"question": line.strip()}) for number, line in lines if line.strip()]
    return list(_table(text))


def _decoded(data: bytes) -> str:
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        raise ContainerProblem(f"is not text in UTF-8 (line {line}): save it in UTF-8") from exc
    return text


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _array(text: str, begin: int | None = None) -> Iterator[Record]:
    """The elements of a JSON array, each with the line it begins in."""
    decoder = json.JSONDecoder()
    at = (text.index("[") if begin is None else begin) + 1
    line, counted = _line(text, at), at
    while True:
        at = _skip(text, at)
        line, counted = line + text.count("\n", counted, at), at
        if text[at : at + 1] == "]":
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as exc:
            raise ContainerProblem(f"is not JSON: {_said(exc)}") from exc
        yield _record(f"line {line}", value)
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at += 1
        elif text[at : at + 1] != "]":
            raise ContainerProblem(f"is not JSON: line {_line(text, at)} ends the list too early or lacks a comma")


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _objects(text: str) -> Iterator[Record]:
    """JSON lines; or one JSON object, which is a record or holds the list of them."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as exc:
        lines = text.split("\n")
        if len([line for line in lines if line.strip()]) == 1:
            raise ContainerProblem(f"is not JSON: {_said(exc)}") from exc
        yield from _lines(lines)
        return
    for key in _WRAPPERS:
        if isinstance(inner := whole.get(key), list):
            yield from (_record(f"{key}[{number}]", value) for number, value in enumerate(inner))
            return
    yield _record("line 1", whole)


def _lines(lines: list[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as exc:
                yield Record(f"line {number}", {}, f"it is not JSON ({_said(exc)})")
            else:
                yield _record(f"line {number}", value)


def _said(exc: Exception) -> str:
    """What is wrong and where."""
    if isinstance(exc, json.JSONDecodeError):
        return (
            f"line {exc.lineno} column {exc.colno}: {exc.msg}" if exc.lineno > 1 else f"column {exc.colno}: {exc.msg}"
        )
    return "it is nested too deeply" if isinstance(exc, RecursionError) else f"{exc}"


def _record(place: str, value: Any) -> Record:
    if isinstance(value, dict):
        return Record(place, value)
    return Record(place, {}, f"it is {_KINDS.get(type(value), 'a value')}, not an object")


_KINDS: Final = {str: "a text", list: "a list", int: "a number", float: "a number", bool: "a truth value"}


def _table(text: str) -> Iterator[Record]:
    """A table with a head. Cells with nothing in them are left out."""
    head_line = text.split("\n", 1)[0]
    delimiter = max(",\t;", key=head_line.count)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        head = [name.strip() for name in next(reader)]
        if len(set(head)) != len(head):
            raise ContainerProblem("has two columns of the same name in its head (line 1)")
        begin = reader.line_num + 1
        for row in reader:
            if any(cell.strip() for cell in row):
                yield _row(f"line {begin}", head, row)
            begin = reader.line_num + 1
    except csv.Error as exc:
        raise ContainerProblem(f"is not a table that can be read (line {reader.line_num}: {exc})") from exc


def _row(place: str, head: list[str], row: list[str]) -> Record:
    if len(row) > len(head):
        return Record(place, {}, f"it has {len(row)} cells, the head has {len(head)}")
    return Record(place, {name: cell for name, cell in zip(head, row, strict=False) if cell.strip()})
