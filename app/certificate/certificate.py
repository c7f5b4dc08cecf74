"""A certificate: one line for each thing that can go wrong between training and serving. Values only."""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec

PROMPTS: Final = "prompt"  # the key of the line about the prompts of the training


class Finding(enum.StrEnum):
    """What one line of a certificate says."""

    SAME = "same"
    DIFFERS = "differs"
    UNCHECKED = "not checkable"


class Outcome(enum.StrEnum):
    """What a whole certificate comes to, in one word for programs. OUTDATED: what is served has changed since."""

    VERIFIED = "verified"
    PARTLY_VERIFIED = "partly_verified"
    UNVERIFIED = "unverified"
    FAILED = "failed"
    OUTDATED = "outdated"


class Fault(enum.StrEnum):
    """What is known to go wrong, by name."""

    NO_TEMPLATE = "the chat template is missing"
    OTHER_FAMILY = "another family's chat template"
    NOT_TRAINED = "it was trained with another chat template"
    SYSTEM_LOST = "the system prompt is lost"
    BOS_DOUBLED = "the token that begins a text (BOS) comes twice"
    OTHER_PROMPT = "the prompt differs"
    NO_STOP = "a stop token does not end answers"
    SHORT_CONTEXT = "the context is shorter than asked"
    FORCED_SAMPLING = "sampling is forced"
    OTHER_SAMPLING = "the sampling defaults are others"
    WRONG_FILE = "another file is served"
    OTHER_CHECKPOINT = "the weights were made from another checkpoint"
    OTHER_ANSWERS = "the answers differ"


class Line(msgspec.Struct, frozen=True):
    """One line. `key`: its short name; `what`: its title; `how`: in a sentence, what was seen. `figures`: numbers for
    programs.
    """

    key: str
    what: str
    verdict: Finding
    how: str
    faults: tuple[Fault, ...] = ()
    figures: dict[str, Any] = {}


class Certificate(msgspec.Struct, frozen=True):
    """What was found out about the public name `model` on that `date` (ISO). `reference`: what it was held against, and
    why that. `against`: the other public name of a comparison. `serving` and `identity`: of what was
    served, as an Observation has them. `held_against`: the folder's name, where somebody named a folder and the gateway
    does not know itself what the model was made from.
    """

    model: str
    date: str
    reference: str
    lines: tuple[Line, ...]
    against: str | None = None
    backend: str = ""
    kind: str = ""
    version: str | None = None
    serving: str | None = None
    identity: str | None = None
    trained_on: str | None = None
    held_against: str | None = None

    @property
    def checks_prompts(self) -> bool:
        """Whether the prompts were held against those of the training; without that nothing is verified."""
        return any(line.key == PROMPTS and line.verdict is not Finding.UNCHECKED for line in self.lines)

    @property
    def failed(self) -> bool:
        """Whether any line differs."""
        return any(line.verdict is Finding.DIFFERS for line in self.lines)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All that were named, once each."""
        return tuple(dict.fromkeys(fault for line in self.lines for fault in line.faults))

    @property
    def outcome(self) -> Outcome:
        """What it comes to, as long as what is served has not changed."""
        if self.failed:
            return Outcome.FAILED
        if not any(line.verdict is Finding.SAME for line in self.lines):
            return Outcome.UNVERIFIED
        return Outcome.VERIFIED if self.checks_prompts else Outcome.PARTLY_VERIFIED

    @property
    def summary(self) -> str:
        """In a few words, as lists of models show it: `verified 2026-11-27 (…)`, `failed: stops`."""
        folder = f"held against folder {self.held_against}" if self.held_against else ""
        if self.failed:
            failed = ", ".join(line.key for line in self.lines if line.verdict is Finding.DIFFERS)
            return f"failed: {failed}" + (f" ({folder})" if folder else "")
        if not any(line.verdict is Finding.SAME for line in self.lines):
            return "unverified (nothing could be checked)"
        if not self.checks_prompts:
            return f"partly verified {self.date} (prompts not checked)"
        template = f"trained template {self.trained_on}" if self.trained_on else ""
        remarks = ", ".join(each for each in (template, folder) if each)
        return f"verified {self.date}" + (f" ({remarks})" if remarks else "")
