"""The subjects of the benchmark: no proxy, nginx, vllm-router, and the gateway as `modelport serve` starts it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from app import keys
from bench import machine
from bench.machine import Unfit, pinned

READY_S = 60.0
STOP_S = 15.0
PLAIN = "modelport"
# By default vllm-router chooses by the longest prefix that it has seen, which costs it; in turn costs it nothing.
POLICIES = {"vllm-router": "cache_aware", "vllm-router, round robin": "round_robin"}
PROBE = {"model": "bench", "messages": [{"role": "user", "content": "ready?"}], "max_tokens": 1}


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: it responds on `port`. `pids` are the processes that carry the data, `beside` its others."""

    name: str
    port: int
    pids: tuple[int, ...] = ()
    beside: tuple[int, ...] = ()


NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream peer {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    keepalive_requests 1000000;
    location / {{
      proxy_pass http://peer;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""

GATEWAY = """
server: {{host: 127.0.0.1, port: {port}}}
backends:
  peer: {{kind: remote, url: "http://127.0.0.1:{upstream}/v1"}}
models:
  bench: {{backend: peer, model: bench{of_model}}}
{more}
keys:
"""


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What a gateway's file has more than the shortest one: of each key and of the model, as further members of a
    mapping in one line, and as further lines. `checkout`: the gateway of that folder, None: of this one.
    """

    of_key: str = ""
    of_model: str = ""
    more: str = ""
    checkout: Path | None = None

    def written(self, port: int, upstream: int, digests: Sequence[str]) -> str:
        """The whole file, with a key for each of these digests."""
        model, key = (f", {each}" if each else "" for each in (self.of_model, self.of_key))
        known = [f"  - {{name: client-{i}, sha256: {each}{key}}}\n" for i, each in enumerate(digests)]
        return GATEWAY.format(port=port, upstream=upstream, of_model=model, more=self.more) + "".join(known)


PLAIN_FILE = BenchSettings()
_FOREIGN = ("API_", "MODELPORT_", "FASTAPI_")


@contextlib.contextmanager
def direct(upstream: int) -> Iterator[Subject]:
    """The upstream itself."""
    yield Subject("no proxy", upstream)


@contextlib.contextmanager
def nginx(folder: Path, upstream: int, core: int) -> Iterator[Subject]:
    """nginx with `proxy_pass`, kept connections and no buffering; Unfit when it is not installed."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise Unfit("nginx is not installed, so there is nothing to compare with: the ratios are left out")
    port = _free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, upstream=upstream, port=port))
    command = [program, "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(config)]
    with _running(command, [core], folder / "nginx.log", dict(os.environ)) as process:
        _wait(process, port, "/v1/models", folder / "nginx.log")
        yield Subject("nginx", port, (process.pid,))


@contextlib.contextmanager
def vllm_router(folder: Path, upstream: int, core: int, environment: Path, name: str) -> Iterator[Subject]:
    """vllm-router of that environment with one worker, with the policy of that name; Unfit when it is not there."""
    program = environment / "bin" / "vllm-router"
    if not program.exists():
        raise Unfit(f"{program} is not there, so {name} is left out: `make bench` installs it")
    port = _free_port()
    command = [str(program), "--host", "127.0.0.1", "--port", str(port), "--policy", POLICIES[name]]
    command += ["--worker-urls", f"http://127.0.0.1:{upstream}", "--prometheus-port", str(_free_port())]
    log = folder / f"{POLICIES[name]}.log"
    with _running([*command, "--log-level", "warning"], [core], log, _environment()) as process:
        _wait(process, port, "/health", log)
        yield Subject(name, port, (process.pid,))


@contextlib.contextmanager
def gateway(
    folder: Path,
    upstream: int,
    cores: Sequence[int],
    secrets: Sequence[str],
    python: str = sys.executable,
    name: str = PLAIN,
    relays: int = 1,
    settings: BenchSettings = PLAIN_FILE,
) -> Iterator[Subject]:
    """The gateway with its defaults and these settings, in front of the upstream as a `remote` backend, for whoever has
    one of these keys, on these cores. `python`: the interpreter that it runs on.
    """
    port = _free_port()
    state = Path(tempfile.mkdtemp(dir=folder))
    config, log = state / "modelport.yaml", state / "gateway.log"
    config.write_text(settings.written(port, upstream, [keys.digest(secret) for secret in secrets]))
    env = _environment() | {"MODELPORT_STATE": str(state / "state")}
    command = [python, "-m", "app", "serve", "--config", str(config), "--relays", str(relays)]
    with _running(command, cores, log, env, settings.checkout) as process:
        _wait(process, port, "/readyz", log, secrets[0])
        children = machine.children(process.pid)
        carrying = tuple(pid for pid in children if "app.relay" in machine.argv(pid))
        if len(carrying) != relays:
            raise Unfit(f"the gateway has {len(carrying)} relays instead of {relays} (children: {children})")
        yield Subject(name, port, carrying, (process.pid,))


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}


@contextlib.contextmanager
def _running(
    command: list[str], cores: Sequence[int], log: Path, env: dict[str, str], inside: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out, pinned(*cores):
        process = subprocess.Popen(
            command, env=env, cwd=inside, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, path: str, log: Path, secret: str = "") -> None:
    """Wait until it says that it is ready and serves a request; Unfit with the end of its log when it does not."""
    deadline = time.monotonic() + READY_S
    last = "nothing"
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=5, headers=headers) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if (ready := client.get(path)).is_success and (
                    ready := client.post("/v1/chat/completions", json=PROBE)
                ).is_success:
                    return
                last = f"{ready.status_code} {ready.text[:200]}"
            except httpx.HTTPError as exc:
                last = repr(exc)
            time.sleep(0.1)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise Unfit(f"{' '.join(process.args) if isinstance(process.args, list) else ''} is not ready: {last}\n{tail}")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
