"""What there is to look at on a machine before an engine is relied on: its program, the libraries that it loads, what
it takes from elsewhere. Values only; whoever looks is elsewhere (`modelport doctor`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class NeededLibrary:
    """A shared library of the system that an engine loads. `file`: by which name; `package`: Debian's and Ubuntu's
    package that holds it; `only_on_cpu`: only where it computes without a GPU.
    """

    file: str
    package: str
    only_on_cpu: bool = False


def _no_flaw(version: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Inspection:
    """Of one backend, or of a kind that no backend is configured of. Empty: nothing of it is on this machine.

    `what`: the engine as people call it. `program`: the word that calls it, `search`: the PATH that it is sought on
    (None: ours), `version_words`: with which arguments it prints its version, `package`: the Python package that it
    belongs to, whose version is on the disk beside it. `module`: what our own Python loads in a process of its own.
    `flaw`: a sentence about what is known to be wrong with a version, None for nothing. `processor`: the flags that an
    x86 processor must have. `hub`: the repositories of the Hugging Face hub that it takes models from, `env`: what its
    process has in its environment besides what is inherited. `variables`: how the names of variables begin that people
    steer it by, and that it does not inherit from us.
    """

    what: str = ""
    program: str | None = None
    search: str | None = None
    version_words: tuple[str, ...] = ()
    package: str | None = None
    module: str | None = None
    flaw: Callable[[str], str | None] = _no_flaw
    libraries: tuple[NeededLibrary, ...] = ()
    processor: tuple[str, ...] = ()
    hub: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    variables: tuple[str, ...] = ()
