"""In how many ways an answer may go on at one place under a regular expression or a GBNF grammar. Pure.

llama.cpp keeps a stack for each way, compares each with each, and tries each on its whole vocabulary: with 500 a token
takes about half a second, with 2,000 about five (docs/decisions.md). Pieces that may be empty are worse, because
whatever stands behind them is one more way: 40 in a row take 0.1 s, 100 take 2 s, 500 hours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

MAX_DEPTH: Final = 100
MAX_TOKENS: Final = 20_000
# Of ways that come from pieces that may be empty: so many of them cost as much as their square, divided by this.
_EMPTY_COST: Final = 20

_REPEAT = r"\{\s*(?P<least>\d{0,9})\s*(?P<comma>,?)\s*(?P<most>\d{0,9})\s*\}"
_REGEX: Final = re.compile(
    rf"\\.|\[\^?\]?(?:[^\]\\]|\\.)*\]|{_REPEAT}|\((?:\?(?:[:=!>]|<[=!]|P?<\w+>))?|[)|?*+]|.", re.DOTALL
)
_GBNF: Final = re.compile(
    rf'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|{_REPEAT}|::=|[()|?*+]|[A-Za-z0-9_-]+|#[^\n]*|\s+|.', re.DOTALL
)
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")


class Ways(NamedTuple):
    """Of one piece: how many ways there are at its widest place, and whether it may be empty."""

    width: int
    may_be_empty: bool = False


ONE: Final = Ways(1)


class TooMuch(Exception):
    """There is more than is looked at; the message says of what ("levels", "pieces")."""


class Reversed(Exception):
    """A repetition whose minimum is above its maximum: llama.cpp never comes to an end with it."""


def of_regex(pattern: str) -> int:
    """The width of a regular expression. Raises TooMuch and Reversed."""
    return _Parser(_tokens(_REGEX, pattern), None).alternatives(0).width


def of_grammar(text: str) -> int:
    """The width of a grammar in GBNF, from its root. Raises TooMuch and Reversed."""
    return _Grammar(
        [token for token in _tokens(_GBNF, text) if not token[0][0].isspace() and token[0][0] != "#"]
    ).width()


_Token = tuple[str, int, int | None]  # its text, and how often it may stand


def _tokens(kind: re.Pattern[str], text: str) -> list[_Token]:
    if len(text) > 4 * MAX_TOKENS:
        raise TooMuch("characters")
    tokens: list[_Token] = []
    for match in kind.finditer(text):
        if len(tokens) == MAX_TOKENS:
            raise TooMuch("pieces")
        tokens.append((match[0], *_bounds(match)))
    return tokens


def _bounds(match: re.Match[str]) -> tuple[int, int | None]:
    if match.lastgroup is None:
        return (1, 1)
    least = int(match["least"] or 0)
    most = (int(match["most"]) if match["most"] else None) if match["comma"] else least
    if most is not None and most < least:
        raise Reversed(match[0])
    return least, most


def _any_of(pieces: Iterable[Ways]) -> Ways:
    """The ways of pieces of which any one may stand."""
    alternatives = list(pieces)
    return Ways(max(1, sum(each.width for each in alternatives)), any(each.may_be_empty for each in alternatives))


def _row(pieces: Iterable[Ways]) -> Ways:
    """The ways of pieces that stand one after the other."""
    widest, run, empties, may_be_empty = 1, 0, 0, True
    for each in pieces:
        run += each.width
        widest = max(widest, _crowd(run) if empties > 1 else run)
        empties += 1
        if not each.may_be_empty:
            run, empties, may_be_empty = 0, 0, False
    return Ways(widest, may_be_empty)


def _crowd(width: int) -> int:
    return max(width, width * width // _EMPTY_COST)


def _repeated(piece: Ways, least: int, most: int | None) -> Ways:
    if piece.may_be_empty and most is not None:
        return Ways(_crowd(piece.width * max(1, most)), may_be_empty=True)
    return Ways(piece.width + 1, piece.may_be_empty or least == 0)


class _Parser:
    """Reads the tokens of one expression. `grammar`: what names in it stand for; None in a regular expression.

    What no engine would take is read in some way or other: the engine refuses it.
    """

    def __init__(self, tokens: list[_Token], grammar: _Grammar | None) -> None:
        self._tokens = tokens
        self._grammar = grammar
        self._at = 0

    def alternatives(self, depth: int) -> Ways:
        """The ways of what stands up to the closing bracket, or the end."""
        if depth > MAX_DEPTH:
            raise TooMuch("levels")
        return _any_of(self._rows(depth))

    def _rows(self, depth: int) -> Iterator[Ways]:
        row: list[Ways] = []
        while self._at < len(self._tokens):
            text, least, most = self._tokens[self._at]
            self._at += 1
            if text[0] == "(":
                row.append(self.alternatives(depth + 1))
            elif text == ")":
                if depth:
                    break
            elif text == "|":
                yield _row(row)
                row = []
            elif text in ("?", "*", "+") or (text[0] == "{" and len(text) > 1):
                bounds = {"?": (0, 1), "*": (0, None), "+": (1, None)}.get(text, (least, most))
                if row:
                    row[-1] = _repeated(row[-1], *bounds)
            elif self._grammar is not None and _NAME.fullmatch(text):
                row.append(self._grammar.of(text))
            else:
                row.append(Ways(1, text == '""'))
        yield _row(row)


class _Grammar:
    """The rules of a grammar by name."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._rules: dict[str, list[_Token]] = {}
        self._known: dict[str, Ways] = {}
        self._open: set[str] = set()
        rule: list[_Token] = []
        for at, token in enumerate(tokens):
            if at + 1 < len(tokens) and tokens[at + 1][0] == "::=":
                rule = self._rules[token[0]] = []
            elif token[0] != "::=":
                rule.append(token)

    def width(self) -> int:
        """The width of its root; of its widest rule where it has no root, which no engine takes."""
        names = ["root"] if "root" in self._rules else list(self._rules)
        return max((self.of(name).width for name in names), default=1)

    def of(self, name: str) -> Ways:
        """The ways of the rule of that name; one way where that is the rule that is being read."""
        if name in self._known or name in self._open:
            return self._known.get(name, ONE)
        if len(self._open) > MAX_DEPTH:
            raise TooMuch("levels")
        self._open.add(name)
        self._known[name] = ways = _Parser(self._rules.get(name, []), self).alternatives(0)
        self._open.discard(name)
        return ways
