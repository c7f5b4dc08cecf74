"""A Dockerfile as a list of instructions, so that a test follows what is written there and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests import ROOT

IMAGES = ("docker/Dockerfile", "docker/Dockerfile.vllm")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its word in capitals, its flags (`--from=build` is `from`: `build`) and what is left."""

    word: str
    flags: Mapping[str, str]
    text: str

    def words(self) -> list[str]:
        """What is left as a list: of its JSON form, else cut at blanks."""
        return list(json.loads(self.text)) if self.text.startswith("[") else self.text.split()

    def pairs(self) -> dict[str, str]:
        """The NAME=VALUE pairs of ENV and LABEL, without quotation marks."""
        return {name: value.strip('"') for name, value in re.findall(r'([\w.]+)=("[^"]*"|\S+)', self.text)}


@dataclass(slots=True)
class Stage:
    """One FROM with what follows it, up to the next. `base`: an image, or the name of an earlier stage."""

    base: str
    name: str
    steps: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[Instruction]:
        """Its instructions of one word."""
        return [step for step in self.steps if step.word == word]

    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        return {name: value for step in self.all("ENV") for name, value in step.pairs().items()}


def instructions(text: str) -> Iterator[Instruction]:
    """The instructions of a Dockerfile in order; comments are left out and continued lines joined."""
    plain = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n\s*", "", plain).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            flags = {}
            # Those of HEALTHCHECK, too.
            while match := re.match(r"--([\w-]+)=(\S+)\s+", rest):
                flags[match[1]] = match[2]
                rest = rest[match.end() :]
            yield Instruction(word.upper(), flags, rest.strip())


def arguments(name: str) -> dict[str, str]:
    """The arguments of a Dockerfile, with their defaults."""
    written = [step.text for step in instructions((ROOT / name).read_text()) if step.word == "ARG" and "=" in step.text]
    return dict(re.fullmatch(r"(\w+)=(.*)", text).groups() for text in written)  # type: ignore[union-attr,misc]


def stages(name: str) -> list[Stage]:
    """The stages of a Dockerfile of this project, in order."""
    made: list[Stage] = []
    for step in instructions((ROOT / name).read_text()):
        if step.word == "FROM":
            base, _, stage = step.text.partition(" AS ")
            made.append(Stage(base, stage))
        elif made:
            made[-1].steps.append(step)
    return made


def context() -> set[Path]:
    """What .dockerignore lets into a build, as paths in the project."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return {Path(line[1:]) for line in lines if line.startswith("!")}
