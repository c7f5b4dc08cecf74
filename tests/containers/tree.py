"""A Dockerfile's steps followed in an empty folder instead of a container, in the order and the words of the file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests import ROOT
from tests.containers.dockerfile import Instruction, Stage, context, stages

# Where an image of ours has its own files; everything else in it is the base's.
_OURS = re.compile(r"(?<![\w.{/-])(/opt|/build|/var/lib/modelport|/var/cache/modelport)(?=[/\s:\"]|$)")
_PATIENCE_S = 600.0


@dataclass(slots=True)
class Tree:
    """The folder that stands for a container's root.

    `borrows`: what lock files name is not installed; the packages of this environment are found instead. `left_out`:
    the steps that were not run, which are those for the base's system alone: its packages, its users, ownership.
    """

    folder: Path
    borrows: bool
    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    work: Path = Path("/")
    left_out: list[str] = field(default_factory=list)

    def here(self, text: str) -> str:
        """A text of the Dockerfile with the paths of our files as they are in this folder."""
        return _OURS.sub(lambda match: f"{self.folder}{match[1]}", text)

    def follow(self, name: str, until: str) -> None:
        """Follow a Dockerfile up to the end of the stage `until`. Stages share the folder, so that a COPY from one into
        another has nothing to do: it is only held that what it wants is there."""
        for stage in stages(name):
            for step in stage.steps:
                self._step(stage, step)
            if stage.name == until:
                return
        raise AssertionError(f"{name} has no stage {until!r}")

    def _step(self, stage: Stage, step: Instruction) -> None:
        match step.word:
            case "WORKDIR":
                self.work = Path(self.here(step.text))
                self.work.mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(step)
            case "RUN":
                self._run(step.text)
            case "ENV":
                self.environment |= {name: self.here(value) for name, value in step.pairs().items()}
            case "ENTRYPOINT":
                self.entrypoint = step.words()
            case "CMD":
                self.command = step.words()
            case "HEALTHCHECK":
                self.health = Instruction("CMD", {}, step.text.removeprefix("CMD").strip()).words()
            case "VOLUME":
                for volume in step.words():
                    Path(self.here(volume)).mkdir(parents=True, exist_ok=True)
            case "USER" | "EXPOSE" | "STOPSIGNAL" | "LABEL" | "ARG":
                self.left_out.append(f"{step.word} {step.text}")
            case _:
                raise AssertionError(f"{stage.name}: nobody has said what {step.word} means here")

    def _copy(self, step: Instruction) -> None:
        *sources, to = step.words()
        if "from" in step.flags:
            assert [source for source in sources if not Path(self.here(source)).exists()] == []
            return
        target = self.work / to
        for source in map(Path, sources):
            assert source in context(), f"{source} does not get past .dockerignore"
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "node_modules", "src")
                shutil.copytree(ROOT / source, target, ignore=ignored)
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, target)

    def _run(self, text: str) -> None:
        for command in (part.strip() for part in text.split("&&")):
            if re.match(r"(apt-get|useradd|install -d|rm -rf /var/lib/apt|ln -s)\b", command):
                self.left_out.append(command)
            elif self.borrows and "--require-hashes" in command:
                self._borrow(command)
            else:
                self._shell(self.here(command))

    def _shell(self, command: str) -> None:
        # The base's `python3` is the one of this suite.
        search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        ended = subprocess.run(
            ["/bin/sh", "-ec", command],
            cwd=self.work,
            env={**os.environ, "PATH": search, "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"

    def _borrow(self, command: str) -> None:
        """Instead of an installation by a lock file: the packages of this environment are found there as well."""
        theirs = sysconfig.get_path("purelib")
        lock = re.search(r"-r (\S+)$", command)
        assert lock is not None, command
        assert (self.work / lock[1]).is_file(), command
        if target := re.search(r"--target (\S+)", command):
            Path(self.here(target[1])).mkdir(parents=True)
        elif python := re.search(r"--python (\S+)/bin/python", command):
            (packages,) = Path(self.here(python[1])).glob("lib/python3*/site-packages")
            (packages / "borrowed.pth").write_text(f"{theirs}\n")
        else:
            raise AssertionError(command)

    def started(self, extra: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """What the container would run, and in which environment: the ENTRYPOINT with the CMD, without `tini`, whose
        place as the first process nobody has here."""
        environment = self._environment(extra)
        init, separator, *program = self.entrypoint
        assert (init, separator) == ("tini", "--")
        return [*self._found(program, environment), *self.command], environment

    def asked(self, extra: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """The health check, run once."""
        environment = self._environment(extra)
        argv = self._found([self.here(word) for word in self.health], environment)
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        search = self.environment.get("PATH", f"{self.folder}/opt/modelport/bin:{os.defpath}")
        return {**self.environment, "PATH": search, **extra}

    def _found(self, argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
        program = shutil.which(argv[0], path=environment["PATH"])
        assert program is not None, f"{argv[0]} is not in {environment['PATH']}"
        assert program.startswith(str(self.folder)), f"{program} is not one of ours"
        return [program, *argv[1:]]
