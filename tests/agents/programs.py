"""Codex CLI and Claude Code from npm: installed once, run without a terminal, on default settings but for telemetry."""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT
from tests.journeys.javascript import locked

LOCK = Path(__file__).parent / "package-lock.json"
CODEX = "node_modules/@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex"
CLAUDE_CODE = "node_modules/@anthropic-ai/claude-code-linux-x64/claude"
PATIENCE_S = 180.0
# Nothing but the gateway can be reached: whatever else they try ends at a port where nobody listens.
NOWHERE = {f"{name}_PROXY": "http://127.0.0.1:9" for name in ("HTTP", "HTTPS", "ALL")} | {"NO_PROXY": "127.0.0.1"}
CODEX_CONFIG = """
model = "MODEL"
model_provider = "modelport"

[model_providers.modelport]
name = "Modelport"
base_url = "URL/v1"
wire_api = "responses"

[analytics]
enabled = false
"""
CLAUDE_ENVIRONMENT = {
    "ANTHROPIC_API_KEY": "none",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
}


@dataclass(frozen=True)
class Output:
    """What an agent printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        """Both outputs, for a text that may be in either."""
        return f"{self.out}\n{self.err}"


def installed() -> Path:
    """The folder with both packages; MODELPORT_AGENTS_ENV names where it is kept."""
    stem = Path(os.environ.get("MODELPORT_AGENTS_ENV") or ROOT / "build" / "agents")
    return locked(LOCK, stem)


class Agent:
    """One of them, with a home and a workplace of its own."""

    def __init__(self, folder: Path, url: str, model: str) -> None:
        self.home, self.work = folder / "home", folder / "work"
        self.home.mkdir()
        self.work.mkdir()
        self._packages = installed()
        self._url, self._model = url, model

    def codex(self, *words: str) -> Output:
        """`codex exec …`."""
        config = self.home / ".codex" / "config.toml"
        config.parent.mkdir(exist_ok=True)
        config.write_text(CODEX_CONFIG.replace("MODEL", self._model).replace("URL", self._url))
        return self._run([str(self._packages / CODEX), "exec", *words], {})

    def claude(self, *words: str) -> Output:
        """`claude -p …`."""
        where = {"ANTHROPIC_BASE_URL": self._url, "ANTHROPIC_MODEL": self._model}
        return self._run([str(self._packages / CLAUDE_CODE), "-p", *words], {**CLAUDE_ENVIRONMENT, **where})

    def _run(self, argv: list[str], env: dict[str, str]) -> Output:
        ended = subprocess.run(
            argv,
            cwd=self.work,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.home), "TERM": "dumb", **NOWHERE, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        return Output(ended.returncode, ended.stdout, ended.stderr)


def picture(path: Path, side: int = 64) -> Path:
    """A red square as a PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\xff\0\0" * side for _ in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path
