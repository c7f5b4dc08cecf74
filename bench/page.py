"""The page docs/performance.md, written from a run."""

from __future__ import annotations

import platform
import re
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench import machine
from bench.figures import Round, rows

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
PACKAGES = ("modelport", "uvicorn", "uvloop", "httptools", "msgspec")

METHOD = """\
# What does the gateway cost?

Written by `make bench-page` (`make bench ARGS=--write`: this part); run it on your machine, since only the ratios
travel.

## Method

The gateway (`modelport serve`, one relay, defaults, a `remote` backend, {keys} keys, of which each connection presents
one), vllm-router (of `requirements-bench.lock`, one worker; with its default policy, which looks for known prefixes,
and with `round_robin`), nginx (`proxy_pass`, kept upstream connections, `proxy_buffering off`) and no proxy at all are
measured one after the other in each round of the same run. What is measured has one core for itself; the upstream and
the load generator, both C on epoll (`bench/peer.c`), share another. The gateway asks the engine for usage and counts
every series, as it always does. Where a newer Python was at hand, the same gateway runs on it beside.

- **CPU per request**: {count:,} chat requests with answers of {answer} bytes over {connections} kept connections; CPU
  time of all threads of the process that carries the data, from `/proc/PID/task/*/schedstat`, divided by the requests.
- **CPU per event**: {connections} streams of 200 events, one every 10 ms each; the same, divided by the events that
  reached the client. The start of each stream is in it.
- **Latency**: {single:,} requests, one after the other on one connection: the median and the 99th percentile, and what
  that is more than without a proxy in the same round.
- **RSS**: after the load, of the process that carries the data.

Every answer is checked: status, framing, the number of events and how it ends. A failure is counted, never left out.
Quoted is the median of the rounds, then the lowest and the highest: a difference inside that spread is no difference.
"""


def markdown(measured: Mapping[str, Sequence[Round]], settings: Mapping[str, int], notes: Sequence[str]) -> str:
    """The whole page."""
    table = ["| | " + " | ".join(measured) + " |", "|---" * (len(measured) + 1) + "|"]
    table += ["| " + " | ".join(row) + " |" for row in rows(measured)]
    count = len(next(iter(measured.values())))
    return "\n".join(
        [
            METHOD.format(**settings),
            f"## Result of {count} round{'s' if count != 1 else ''}\n",
            *table,
            "",
            *notes,
            "",
            "## Machine and versions\n",
            *textwrap.wrap(f"{machine.in_words()}; {versions()}.", 120),
            "",
        ]
    )


def sections(text: str) -> dict[str, str]:
    """The sections of a page by their headings, in their order; what is before the first one by the page's title."""
    parts = re.split(r"(?m)^(?=## )", text)
    return {part.partition("\n")[0]: part.rstrip() + "\n" for part in parts}


def with_section(text: str, section: str) -> str:
    """The page with this section in place of the one of its heading; a new one comes before the last."""
    each = sections(text)
    heading = section.partition("\n")[0]
    if heading in each:
        each[heading] = section
        return "\n".join(each.values())
    *before, last = each.values()
    return "\n".join([*before, section, last])


def put_section(section: str) -> None:
    """Write it into the page."""
    PAGE.write_text(with_section(PAGE.read_text(encoding="utf-8"), section), encoding="utf-8")


def kept(text: str, fresh: str) -> str:
    """The fresh page, with the sections of the page before that it does not have."""
    for heading, section in sections(text).items():
        if heading.startswith("## ") and heading not in sections(fresh) and not heading.startswith("## Result of"):
            fresh = with_section(fresh, section)
    return fresh


def versions() -> str:
    """The versions of everything that has a part in the figures."""
    known = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            known.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    for program in ("nginx", "/usr/sbin/nginx"):
        try:
            printed = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr
        except OSError:
            continue
        return ", ".join([*known, printed.strip().rpartition(": ")[2].replace("/", " ")])
    return ", ".join(known)
