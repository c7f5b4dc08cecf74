"""What goes wrong with tool environments, and what pip prints of it, in one sentence. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_NETWORK: Final = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|Max retries exceeded|"
    r"Connection (?:refused|reset)|Network is unreachable|Temporary failure in name resolution|SSLError|"
    r"CERTIFICATE_VERIFY_FAILED"
)
_FULL: Final = re.compile(r"No space left on device|Errno 28|Disk quota exceeded")
_MISSING: Final = re.compile(r"No matching distribution found for ([^\s;]+)")
_HASHES: Final = re.compile(r"DO NOT MATCH THE HASHES|do not match the hashes|HASH", re.IGNORECASE)
_CREDENTIALS: Final = re.compile(r"://[^/\s@]+@")
LONGEST: Final = 400  # characters of somebody else's message


class ToolError(Exception):
    """A tool could not be made or has failed; its text is one sentence for the user."""


class Unavailable(ToolError):
    """The package index offers none of the locked files for this machine; the next choice may be tried."""


def pip_failure(printed: Sequence[str], code: int, platform: str) -> ToolError:
    """Why pip has failed, from what it printed; `platform` says for whom it looked ("Python 3.11 on Linux x86_64")."""
    text = "\n".join(printed)
    if _FULL.search(text):
        return ToolError("the disk is full")
    missing = _MISSING.search(text)
    if _NETWORK.search(text):
        return ToolError(
            "the package index cannot be reached: check the network, or tell pip where its index is "
            "(PIP_INDEX_URL, pip.conf)"
        )
    if missing is not None:
        return Unavailable(f"the package index has no {missing[1]} for {platform}")
    if _HASHES.search(text):
        named = re.findall(r"^\s+(\S+) from ", text, re.MULTILINE)
        what = named[0].partition("==")[0] if named else "a package"
        return Unavailable(f"the package index has another file for {what} than the lock file knows for {platform}")
    errors = [line for line in printed if line.startswith("ERROR")]
    said = (errors or [line for line in printed if line.strip()] or [f"exit code {code}"])[-1]
    return ToolError(f"pip says: {shortened(said.removeprefix('ERROR: '))}")


def shortened(text: str) -> str:
    """The text on one line, without credentials in addresses, at most LONGEST characters."""
    line = _CREDENTIALS.sub("://", " ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
