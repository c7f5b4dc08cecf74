"""The argument list and the environment of vLLM's server, from the configuration. Pure.

Flags and variables are those of vLLM 0.32 and newer; a live test compares them with `vllm serve --help=all`.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Final

from backends.process.process import gpu_environment
from backends.vllm.config import VllmConfig

# Settings that become an argument when they differ from their default.
VALUES: Final = {
    "revision": "--revision",
    "dtype": "--dtype",
    "quantization": "--quantization",
    "tensor_parallel_size": "--tensor-parallel-size",
    "pipeline_parallel_size": "--pipeline-parallel-size",
    "data_parallel_size": "--data-parallel-size",
    "distributed_executor_backend": "--distributed-executor-backend",
    "nnodes": "--nnodes",
    "node_rank": "--node-rank",
    "master_addr": "--master-addr",
    "max_model_len": "--max-model-len",
    "max_num_seqs": "--max-num-seqs",
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "kv_cache_memory_bytes": "--kv-cache-memory-bytes",
    "chat_template": "--chat-template",
    "tool_call_parser": "--tool-call-parser",
    "reasoning_parser": "--reasoning-parser",
    "seed": "--seed",
}
SWITCHES: Final = {"enforce_eager": "--enforce-eager", "trust_remote_code": "--trust-remote-code"}
TASKS: Final = {
    "generate": (),
    "embed": ("--runner=pooling", "--convert=embed"),
    "classify": ("--runner=pooling", "--convert=classify"),
}
# Flags that get the model's commit too; not where the one beside it is given: that one means another repository.
PINNED: Final = {"--tokenizer-revision": "--tokenizer", "--code-revision": None}
# With one of these vLLM may need another repository of the hub than its model's.
_MORE_FROM_HUB: Final = ("--tokenizer", "--hf-config-path", "--speculative-config", "--lora-modules", "--config")
LORA_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)  # the values that --max-lora-rank accepts
DEFAULT_LORA_RANK: Final = 16
# On a CPU vLLM 0.32 gives a request to the base that shares a batch with an adapter's the weights of the last slot
# (its torch operations take index -1 for it). So that slot stays empty; the others are for adapters that join later,
# as each one that is loaded takes a slot until all are taken, also when it is unloaded.
SPARE_ON_CPU: Final = 4

PORTS_FROM: Final = 20_000  # the range is below the ports that systems use for outgoing connections
PORTS_TO: Final = 32_000
PORT_STRIDE: Final = 64  # the ports that one engine's processes may need among themselves


def argv(
    config: VllmConfig,
    name: str,
    port: int,
    *,
    drain_s: float = 30.0,
    has_gpus: bool = False,
    lora_ranks: Iterable[int] = (),
    commit: str | None = None,
) -> list[str]:
    """The argument list of a server on 127.0.0.1:`port` that serves its model as `name`.

    `has_gpus`: whether it may run on one; else adapters get spare slots. `drain_s`: how many seconds it goes on with
    running requests after TERM. `lora_ranks`: the ranks of the configured adapters. `commit`: the commit that the
    revision of a model from the hub is pinned to.
    """
    if commit is not None:
        config = config.model_copy(update={"revision": commit})
    line = [*_command(config), "--host=127.0.0.1", f"--port={port}", f"--served-model-name={name}"]
    for field, flag in VALUES.items():
        value = getattr(config, field)
        if value != VllmConfig.model_fields[field].default:
            line.append(f"{flag}={value}")
    if commit is not None:
        given = {word.partition("=")[0] for word in config.args}
        line += [f"{flag}={commit}" for flag, other in PINNED.items() if not {flag, other} & given]
    line += [flag for field, flag in SWITCHES.items() if getattr(config, field)]
    line += TASKS[config.task]
    if config.tool_call_parser is not None:
        line.append("--enable-auto-tool-choice")
    if config.override_generation_config:
        line.append(f"--override-generation-config={json.dumps(config.override_generation_config)}")
    if config.allowed_media_domains:
        line += ["--allowed-media-domains", *config.allowed_media_domains]
    if config.takes_adapters:
        spare = 0 if has_gpus else SPARE_ON_CPU
        line += ["--enable-lora", f"--max-loras={max(1, len(config.adapters)) + spare}"]
        line.append(f"--max-lora-rank={_rank(lora_ranks)}")
    if config.sleep is not None and has_gpus:
        line.append("--enable-sleep-mode")  # the CPU build refuses to start with it, and sleeps without
    if config.node_rank > 0:
        line.append("--headless")
    line.append(f"--shutdown-timeout={math.ceil(drain_s)}")
    # Prompts stay out of its log; and lines about our probes would push what matters out of the log's tail.
    return [*line, "--no-enable-log-requests", "--disable-uvicorn-access-log", *config.args]


def _command(config: VllmConfig) -> list[str]:
    """The command with the model: `vllm serve MODEL`, or `python -m vllm.entrypoints… --model MODEL`."""
    command = list(config.command)
    if PurePath(command[-1]).name == "vllm":
        command.append("serve")
    return [*command, config.model] if command[-1] == "serve" else [*command, f"--model={config.model}"]


def _rank(ranks: Iterable[int]) -> int:
    needed = max(ranks, default=0)
    return next((rank for rank in LORA_RANKS if rank >= max(needed, DEFAULT_LORA_RANK)), LORA_RANKS[-1])


def lora_rank(line: Sequence[str]) -> int | None:
    """The highest rank of adapters that a server with this argument list takes; None where it takes none."""
    last = None
    for at, word in enumerate(line):
        flag, is_given, value = word.partition("=")
        if flag.replace("_", "-") == "--max-lora-rank":
            text = value if is_given else line[at + 1] if at + 1 < len(line) else ""
            last = int(text) if text.isdecimal() else last
    return last


def environment(
    config: VllmConfig,
    inherited: Mapping[str, str],
    *,
    key: str,
    first_port: int,
    devices: Sequence[str] = (),
    is_local: bool = False,
) -> dict[str, str]:
    """Its whole environment but TMPDIR, which each start has for itself.

    `inherited`: what it gets of ours. `key`: the API key of this start. `first_port`: where its block of ports begins.
    `devices`: the GPUs that it may see; empty: no choice is made. `is_local`: its model is on this machine, so the hub
    is not needed.
    """
    env = {name: value for name, value in inherited.items() if not name.startswith("VLLM_")}
    env |= {
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600",  # its 5 s would race with our use of idle connections
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_PORT": str(first_port),
        "SPT_NOENV": "1",  # its processes' titles would be written over their environment, and so over our tag
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",  # a crash inside a kernel says at least that much
    }
    if config.is_on_one_machine:
        env |= {
            "VLLM_HOST_IP": "127.0.0.1",
            "VLLM_LOOPBACK_IP": "127.0.0.1",
            "GLOO_SOCKET_IFNAME": "lo",
            "NCCL_SOCKET_IFNAME": "lo",
        }
    if is_local and not any(word.partition("=")[0] in _MORE_FROM_HUB for word in config.args):
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    env |= gpu_environment(devices)
    if config.sleep is not None:
        env["VLLM_SERVER_DEV_MODE"] = "1"
    if config.takes_adapters:
        env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    return {**env, **config.env, "VLLM_API_KEY": key}


def first_port(name: str, is_free: Callable[[int], bool]) -> int:
    """The first of PORT_STRIDE ports that the engine's processes may use among themselves.

    The block is chosen by the engine's name, so that engines seldom get the same one; where its first port is taken,
    the next block whose first port `is_free`.
    """
    count = (PORTS_TO - PORTS_FROM) // PORT_STRIDE
    start = zlib.crc32(name.encode()) % count
    blocks = [PORTS_FROM + PORT_STRIDE * ((start + offset) % count) for offset in range(count)]
    return next((block for block in blocks if is_free(block)), blocks[0])
