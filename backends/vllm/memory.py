"""How much memory a vLLM takes: as its settings and files let one expect, and as it reports it while it starts."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Final

from backends.process.footprint import Footprint
from backends.vllm.config import VllmConfig
from backends.vllm.model_folder import config_of, weights_bytes

_GB: Final = 1e9
_GIB: Final = 2**30
# Server, core and worker: measured with a model of half a million parameters on vLLM's CPU build; one more worker.
_PROCESSES_GB: Final = 1.7
_WORKER_GB: Final = 0.6
_SHARE: Final = 0.92  # vLLM's default of gpu_memory_utilization, which on a CPU is a share of the host's memory
_BYTES: Final = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}

# What it prints while it starts; its GiB are 2^30 bytes.
_WEIGHTS_LINE: Final = re.compile(r"Model loading took ([\d.]+) GiB")
_CACHE_LINE: Final = re.compile(r"Available KV cache memory: ([\d.]+) GiB")
_TOKENS_LINE: Final = re.compile(r"KV cache size: ([\d,]+) tokens")


def estimated_gb(config: VllmConfig, host_gb: float) -> float | None:
    """The host memory that it will take on the CPU of a machine with `host_gb`; None where too little is known.

    The weights in its `dtype` + the KV cache of each worker + 1.7 for its processes. Without a size of the cache
    (`kv_cache_memory_bytes`, or VLLM_CPU_KVCACHE_SPACE in `env`, in GiB) each worker takes its share
    (`gpu_memory_utilization`) of the host's memory in all (vllm/v1/worker/cpu_worker.py).
    """
    workers = config.gpus_each()
    if workers is None:
        return None
    cache = _cache_bytes(config)
    if cache is None:
        return _share_gb(config, host_gb) * workers
    weights = weights_gb(config)
    if weights is None:
        return None
    copies = config.data_parallel_size
    loaded = weights * _growth(config) * copies
    return loaded + cache * workers / _GB + _PROCESSES_GB * copies + _WORKER_GB * (workers - copies)


def demanded_gb(config: VllmConfig, host_gb: float) -> float | None:
    """The host memory that must be free when it starts on the CPU: with less it ends, however little it would take."""
    if not config.is_on_one_machine:
        return None
    cache = _cache_bytes(config)
    return cache / _GB if cache is not None else _share_gb(config, host_gb)


def weights_gb(config: VllmConfig) -> float | None:
    """The size of its weights on disk; None where they are not here."""
    with contextlib.suppress(OSError):
        size = weights_bytes(config.model)
        return size / _GB if size is not None else None
    return None


def reported(lines: Sequence[str]) -> Footprint:
    """What it printed of its memory while it started."""
    text = "\n".join(lines)
    weights, cache, tokens = (line.search(text) for line in (_WEIGHTS_LINE, _CACHE_LINE, _TOKENS_LINE))
    return Footprint(
        weights_gb=round(float(weights[1]) * _GIB / _GB, 3) if weights else None,
        kv_gb=round(float(cache[1]) * _GIB / _GB, 3) if cache else None,
        kv_tokens=int(tokens[1].replace(",", "")) if tokens else None,
    )


def _share_gb(config: VllmConfig, host_gb: float) -> float:
    return (config.gpu_memory_utilization or _SHARE) * host_gb


def _cache_bytes(config: VllmConfig) -> int | None:
    with contextlib.suppress(ValueError):
        return int(config.env.get("VLLM_CPU_KVCACHE_SPACE", "")) * _GIB
    return config.kv_cache_memory_bytes


def _growth(config: VllmConfig) -> float:
    """How much larger the weights are in memory than on disk."""
    model = config_of(config.model)
    if model is None or config.quantization is not None or "quantization_config" in model:
        return 1.0
    stored = _BYTES.get(str(model.get("dtype") or model.get("torch_dtype")))
    wanted = _BYTES.get(str(config.dtype))
    return wanted / stored if stored and wanted else 1.0
