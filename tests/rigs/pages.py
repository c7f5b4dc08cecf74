"""The documentation as a test reads it: pages, headings, links, code blocks, commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from tests import ROOT

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_VARIABLE = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True, slots=True)
class Page:
    """One page. `name` is its path from the repository's root."""

    name: str
    text: str

    @property
    def prose(self) -> str:
        """The text without the code blocks."""
        return _FENCE.sub("", self.text)

    @property
    def sections(self) -> dict[str, str]:
        """The text under each heading, by the heading without its backticks."""
        parts = re.split(r"^#+ (.+)$", self.prose, flags=re.MULTILINE)
        return {heading.replace("`", ""): body.strip() for heading, body in zip(parts[1::2], parts[2::2], strict=True)}

    @property
    def coded(self) -> set[str]:
        """The headings that are nothing but code: names of settings, routes, codes, series, verbs."""
        return set(re.findall(r"^#+ `([^`]+)`$", self.prose, re.MULTILINE))

    @property
    def anchors(self) -> set[str]:
        """What a link may name after `#`."""
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in self.sections}

    @property
    def links(self) -> list[tuple[str, str]]:
        """Links to other pages and files here: path (empty: this page) and anchor (empty: none)."""
        links = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", self.prose)
        return [(path, anchor) for path, anchor in links if "://" not in path]

    def blocks(self, language: str) -> list[str]:
        """The code blocks in a language."""
        return [body for name, body in _FENCE.findall(self.text) if name == language]

    @property
    def commands(self) -> Iterator[list[str]]:
        """Every command line in a bash block, without variables in front of it, and every inline one of ours."""
        for block in self.blocks("bash"):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                while words and _VARIABLE.match(words[0]):
                    del words[0]
                if words:
                    yield words
        for line in re.findall(r"`((?:modelport|make) [^`]+)`", self.prose):
            yield shlex.split(line)


def page(name: str) -> Page:
    """The page at this path."""
    return Page(name, (ROOT / name).read_text(encoding="utf-8"))


def pages() -> dict[str, Page]:
    """All pages."""
    names = [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
    ]
    return {name: page(name) for name in names}
