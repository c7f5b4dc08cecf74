"""Which option a model chose, or whether it said true or false, out of whatever it wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from app.comparison.closed_answers import leading_letter, only_letters, truth
from app.comparison.question import LETTERS, is_dense
from app.comparison.scores.tokens import said, tokens

_WIDE_LETTERS: Final = {ord("Ａ") + place: letter for place, letter in enumerate(LETTERS)}
# A letter by itself, or several with commas or "and" between them, or without anything: "B", "A, C and D", "ACD".
_LETTERS: Final = r"([A-Z](?:\s*(?:,|、|，|&|\band\b|和|与|及)?\s*[A-Z](?![A-Za-z]))*)(?![A-Za-z'’])"
# Quotation marks, brackets and Markdown before it.
_BEFORE: Final = r"[\s*_`\"“(（\[【<$\\{]*(?:(?:boxed|text)\{)*"
# Where a model declares its answer. The last declaration counts: who thinks aloud weighs others before.
_DECLARED: Final = (
    re.compile(rf"\\boxed\{{\s*(?:\\text\{{)?\s*{_LETTERS}"),
    re.compile(
        rf"(?i:\b(?:answers?|choices?|options?)\b(?:\s+(?:letters?|options?|choices?))?\s*"
        rf"(?:(?:is|are|would\s+be|should\s+be|:|：|=)\s*)+(?:(?:options?|choices?|letters?)\b)?){_BEFORE}{_LETTERS}"
    ),
    re.compile(
        rf"(?:(?:答案|选项|选择)(?:应该|应当|应)?(?:是|为|：|:|选)+|故选|应选|应该选|我选|所以选|因此选|选择|选)"
        rf"\s*[:：]?\s*(?:选项)?{_BEFORE}{_LETTERS}"
    ),
    re.compile(
        r"(?i:\b(?:option|choice|letter)\s+)\(?([A-Z])\)?(?=(?i:\s+is\s+(?:the\s+)?(?:correct|right|best|true)\b))"
    ),
)
# The longer ones first: what is not correct is not "correct".
_SAID_TRUTH: Final = re.compile(
    r"(?i)(?P<false>\b(?:not|isn't|isn’t|n't|never)\s+(?:\w+\s+)?(?:true|correct|right|accurate)\b"
    r"|\b(?:false|untrue|incorrect|wrong|inaccurate)\b"
    r"|(?:不|并非|并不|没有|未必|不是)(?:是)?(?:正确|对的|对|真|成立)|错误|错的|是错|有误|假的|[❌✗✘×☒✖])"
    r"|(?P<true>\b(?:true|correct|right|accurate)\b|正确|对的|是对|无误|[✅✓✔√☑])"
)
_DOUBLE: Final = re.compile(r"(?i)\bnot\s+(?:false|incorrect|wrong|untrue)\b|没有错误|并非错误|不是错误|没错")


def chosen(answer: str, options: Sequence[str], *, several: bool = False, is_cut: bool = False) -> str | None:
    """The letters of the options that an answer chooses, in the alphabet's order; None where it cannot be told. Where
    not `several` options may be right, an answer that names more than one has chosen them all. Of an answer that
    `is_cut` off by the limit of tokens, the end says nothing.
    """
    text = said(answer).translate(_WIDE_LETTERS)
    if (letters := _alone(text, options, is_cut=is_cut)) is not None:
        return letters
    ways = (_declared, _listed, _by_text, _mentioned)
    return next((letters for way in ways if (letters := way(text, options, several))), None)


def _alone(text: str, options: Sequence[str], *, is_cut: bool) -> str | None:
    """Nothing but letters: the whole answer, its first line, or its last where that is not one more of a list."""
    lines = [line for line in text.split("\n") if line.strip()]
    ends = lines[-1:] if not is_cut and (len(lines) < 2 or leading_letter(lines[-2]) is None) else []
    if not ends and not is_cut and re.search(r"\n\s*\n[^\n]*$", text):
        ends = lines[-1:]
    parts = (text, *lines[:1], *ends)
    return next((letters for part in parts if (letters := only_letters(part, len(options)))), None)


def _declared(text: str, options: Sequence[str], several: bool) -> str | None:
    """ "The answer is B", "答案：B"."""
    matches = [match for pattern in _DECLARED for match in pattern.finditer(text)]
    for match in sorted(matches, key=lambda match: match.end(), reverse=True):
        named = re.sub(r"and|和|与|及", ",", match[1])
        if letters := only_letters(named, len(options)):
            return letters
    return None


def _listed(text: str, options: Sequence[str], several: bool) -> str | None:
    """ "B. Danube": the letter that the answer begins with; where several may be right, of each line."""
    lines = [line.strip().removeprefix("- ").removeprefix("* ") for line in text.split("\n") if line.strip()]
    letters = [letter for line in lines if (letter := leading_letter(line)) and letter in LETTERS[: len(options)]]
    if not lines or not letters or leading_letter(lines[0]) is None:
        return None
    if several:
        return "".join(sorted(set(letters)))
    # A model that only repeats the options has chosen nothing yet.
    return None if letters[:2] == ["A", "B"] else letters[0]


def _by_text(text: str, options: Sequence[str], several: bool) -> str | None:
    """The option's own words occur. Of options that are within each other, the longest counts."""
    pieces = tokens(text)
    taken = [False] * len(pieces)
    chosen_places = set()
    for place in sorted(range(len(options)), key=lambda place: -len(tokens(options[place]))):
        wanted = tokens(options[place])
        for at in _places(pieces, wanted):
            if not any(taken[at : at + len(wanted)]):
                chosen_places.add(place)
            taken[at : at + len(wanted)] = [True] * len(wanted)
    if len(chosen_places) == 1 or (several and chosen_places and len(chosen_places) < len(options)):
        return "".join(LETTERS[place] for place in sorted(chosen_places))
    return None


def _places(pieces: Sequence[str], wanted: Sequence[str]) -> Iterator[int]:
    if wanted:
        starts = range(len(pieces) - len(wanted) + 1)
        yield from (at for at in starts if pieces[at : at + len(wanted)] == wanted)


def _mentioned(text: str, options: Sequence[str], several: bool) -> str | None:
    """Letters by themselves within the text, but for "A" and "I" as English words."""
    letters = set()
    for match in re.finditer(r"(?<![A-Za-z0-9])([A-Z])(?![A-Za-z0-9'’])", text):
        is_word = match[1] in "AI" and re.match(r"\s+(?!(?:or|and|is)\b)[a-z]", text[match.end() :]) is not None
        if match[1] in LETTERS[: len(options)] and not is_word:
            letters.add(match[1])
    return "".join(sorted(letters)) if len(letters) == 1 or (several and 1 < len(letters) < len(options)) else None


def judged(answer: str) -> bool | None:
    """Whether an answer says true or false; None where it says neither, or both without a first word or a last line
    that settles it.
    """
    text = said(answer)
    if not text:
        return None
    lines = [line for line in text.split("\n") if line.strip()]
    for part in (text, lines[0], lines[-1], re.split(r"[\s,.，。:：;；!！]", text.lstrip('*_`"“ '), maxsplit=1)[0]):
        verdict = truth(part)
        if verdict is not None:
            return verdict
    plain = _DOUBLE.sub(lambda match: "正确" if is_dense(match[0][0]) else "true", text)
    verdicts = {match.lastgroup == "true" for match in _SAID_TRUTH.finditer(plain)}
    if len(verdicts) == 1:
        return verdicts.pop()
    declared = re.search(
        r"(?is)(?:\banswer\b\s*(?:is|:|：)?|答案(?:是|为|：|:)?|因此|所以|\btherefore\b|\bso\b)(?P<rest>[^\n]*)$", plain
    )
    last = {match.lastgroup == "true" for match in _SAID_TRUTH.finditer(declared["rest"])} if declared else set()
    return last.pop() if len(last) == 1 else None
