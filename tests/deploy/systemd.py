"""A real systemd that runs our unit, and nothing else, in namespaces of its own.

It needs root and the right to mount. Of the machine it shares the network, so the gateway is reached as any other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests import ROOT
from tests.rigs.serving import PATIENCE_S, until

UNITS = ROOT / "docker" / "systemd"
UNIT = "modelport.service"
# The unit has no journal to write into here, so what it writes goes into a file.
BOX = """
[Service]
Environment=LD_LIBRARY_PATH=/opt/modelport/python/lib
StandardOutput=append:/run/box/printed
StandardError=append:/run/box/log
"""
# The targets that a unit is tied to by default, without anything in them.
TARGETS = ("box", "sysinit", "basic", "shutdown", "umount", "network-online", "multi-user")
# Everything of the machine but its network.
NAMESPACES = ("--pid", "--mount", "--cgroup", "--uts", "--ipc")
TARGET = """
[Unit]
DefaultDependencies=no
"""


class Systemd:
    """One systemd, with our unit and `dropin` over it. `etc` is what the unit sees as /etc/modelport."""

    def __init__(self, box: Path, config: str, dropin: str, vllm: str) -> None:
        self.box = box
        self.etc = box / "etc"
        self.config = self.etc / "modelport.yaml"
        units = box / "units"
        for folder in (self.etc, units / f"{UNIT}.d"):
            folder.mkdir(parents=True, exist_ok=True)
        box.chmod(0o755)
        self.config.write_text(config)
        shutil.copy(UNITS / UNIT, units / UNIT)
        for name in TARGETS:
            (units / f"{name}.target").write_text(TARGET)
        (units / f"{UNIT}.d" / "box.conf").write_text(BOX + dropin)
        self._booted = (box / "boot.log").open("wb")
        self._process = subprocess.Popen(
            ["unshare", *NAMESPACES, "--fork", "--mount-proc", "bash", Path(__file__).parent / "boot.sh"],
            env={
                "PATH": os.environ["PATH"],
                "BOX": str(box),
                "ROOT": str(ROOT),
                "PYTHON": sys.base_prefix,
                "VLLM": vllm,
                "PACKAGES": str(Path(sys.prefix).resolve() / "lib"),
            },
            stdin=subprocess.DEVNULL,
            stdout=self._booted,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        until(lambda: bool(self._children()))
        until(lambda: self._ask("is-system-running").stdout.strip() in ("running", "degraded"))

    @property
    def pid(self) -> int:
        """The process of systemd, as this machine counts."""
        children = self._children()
        assert children, (self.box / "boot.log").read_text()
        return int(children[0])

    def _children(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return []

    def _inside(self, *command: str) -> list[str]:
        return ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--cgroup", *command]

    def _ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        if self._process.poll() is not None:
            raise AssertionError(f"systemd has ended: {(self.box / 'boot.log').read_text()}")
        return subprocess.run(self._inside("systemctl", *words), capture_output=True, text=True, timeout=PATIENCE_S * 3)

    def systemctl(self, verb: str) -> int:
        """Do this with the unit, and wait as systemctl does; returns its exit code."""
        return self._ask(verb, UNIT).returncode

    def shown(self, name: str) -> str:
        """A property of the unit, as `systemctl show` has it."""
        return self._ask("show", UNIT, "--property", name, "--value").stdout.strip()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside the unit, as root."""
        return subprocess.run(self._inside(*command), capture_output=True, text=True, timeout=PATIENCE_S)

    def printed(self) -> str:
        """What the gateway said on its standard output so far."""
        path = self.box / "printed"
        return path.read_text() if path.exists() else ""

    def log(self) -> str:
        """What it logged so far."""
        path = self.box / "log"
        return path.read_text() if path.exists() else ""

    def members(self) -> list[int]:
        """The processes of the unit, as they count inside."""
        group = self.shown("ControlGroup")
        listed = self.run("cat", f"/sys/fs/cgroup{group}/cgroup.procs") if group else None
        return [int(pid) for pid in listed.stdout.split()] if listed is not None else []

    def close(self) -> None:
        """End it and everything in it."""
        with contextlib.suppress(AssertionError, ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # the end of a namespace's first process ends all others
        self._process.wait(PATIENCE_S)
        self._booted.close()


@contextlib.contextmanager
def systemd(box: Path, config: str, dropin: str = "", vllm: str = "") -> Iterator[Systemd]:
    """A systemd of the test's own; `box` is an empty folder; `vllm`, an environment, is in /opt/modelport/vllm."""
    machine = Systemd(box, config, dropin, vllm)
    try:
        yield machine
    finally:
        machine.close()
