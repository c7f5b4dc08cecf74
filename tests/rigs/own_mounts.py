"""File systems of a process's own: what is mounted there, nothing else on the machine sees."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from functools import cache


@cache
def entering() -> tuple[str, ...] | None:
    """The command that enters a mount namespace of its own; None where this process may not make one."""
    commands = (("unshare", "--mount"), ("unshare", "--user", "--map-root-user", "--mount"))
    for command in commands if os.geteuid() == 0 else commands[1:]:
        try:
            probe = [*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
            if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
                return command
        except OSError:
            continue
    return None


def with_mounts(command: Sequence[str], *steps: Sequence[str]) -> list[str]:
    """The command line that does these steps (`mount …`) in a namespace of its own, then becomes the command there."""
    inside = " && ".join([*(shlex.join(step) for step in steps), f"exec {shlex.join(command)}"])
    enter = entering()
    assert enter is not None
    return [*enter, "sh", "-c", inside]
