"""What a backend's settings and files tell before it is started: what is missing, what it will take, what it can do.

Each kind's folder has its own (`preflight.py`); `backends.kinds.preflight` picks it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.config.base import BackendConfig
from backends.endpoint import ModelFacts
from backends.inspection import Inspection

Missing = Iterator[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class ModelOnDisk:
    """What the files and settings of one model say of how it is served; None where they do not.

    `weights`: the files of its weights. `has_template`: whether they bring a chat template; `template_is_given`: the
    settings name another. `bos`: the number of the token that begins a text, and `bos_text` its text. `sampling`: what
    answers are drawn with when a request says nothing, by vLLM's names. `source`: the digest of the checkpoint that it
    was made from. `context_length`: what the model was made for, in tokens.
    """

    weights: tuple[Path, ...] = ()
    has_template: bool | None = None
    template_is_given: bool = False
    bos: int | None = None
    bos_text: str | None = None
    sampling: Mapping[str, float] | None = None
    source: str | None = None
    context_length: int | None = None


@dataclass(frozen=True, slots=True)
class EngineAccount:
    """What a running engine says of one model; None where it does not. `sampling`: as in ModelOnDisk. `stops`: texts
    that end an answer, as its settings name them. `has_template`: as there. `sha256`: of the weights.
    """

    sampling: Mapping[str, float] | None = None
    stops: tuple[str, ...] | None = None
    has_template: bool | None = None
    sha256: str | None = None


class Preflight:
    """Of one backend; nothing is started. As it is here, it is for a kind of which nothing is known beforehand.

    Every method blocks: it reads files. None of them raises for what is missing or broken.
    """

    def __init__(self, config: BackendConfig) -> None:
        """Each kind has its own class of configuration."""

    def missing(self) -> Missing:
        """What the configuration names and this machine does not have, or has broken: each as the setting and a
        sentence about its value. None of it is a mistake of the configuration file: it may be for another machine, and
        what is missing may come before the start.
        """
        yield from ()

    def expected_facts(self) -> ModelFacts | None:
        """What the engine will report of each of its models; None where nothing is known before it runs."""
        return None

    def on_disk(self) -> ModelOnDisk | None:
        """What its model's files say of how it is served; None where they are not here."""
        return None

    def account_request(self, model: str) -> tuple[str, object] | None:
        """How the running engine is asked what it says of `model`: a path beside `/v1`, and the body of a POST, None
        for a GET. None where it says nothing.
        """
        return None

    def account(self, answer: Any) -> EngineAccount:
        """What its response says, decoded."""
        return EngineAccount()

    def weights_gb(self) -> float | None:
        """The size of the model's weights on disk, in GB; None where they are not here or not known."""
        return None

    def estimated_gb(self, host_gb: float) -> float | None:
        """The host memory that the engine will take when it runs on the CPU of a machine with `host_gb`, in GB; None
        where the files are not here or say too little.

        Only a guess: it helps to place an engine of which nothing else is known, and is no reason to refuse one.
        """
        return None

    def inspection(self) -> Inspection:
        """What there is to look at on this machine before it is relied on."""
        return Inspection()

    def demanded_gb(self, host_gb: float) -> float | None:
        """The host memory that must be free when the engine starts on the CPU, however little it will take, in GB; None
        where it makes no such demand.
        """
        return None


def program_path(command: str, env: Mapping[str, str]) -> str | None:
    """The program that a backend's `command` calls with its `env`; None where there is none that can be run."""
    return shutil.which(str(Path(command).expanduser()), path=env.get("PATH", os.environ.get("PATH", os.defpath)))


def missing_program(command: str, advice: str) -> Missing:
    """The sentence for a `command` that `program_path` does not find. `advice`: what to do about it."""
    problem = "is not a program that can be run" if Path(command).expanduser().is_file() else "is not there"
    yield "command", f"'{command}' {problem}: {advice}"
