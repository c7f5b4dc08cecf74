"""What an engine will take of the host's memory, as far as its files and settings tell. Blocks: it looks at files.

Never more than a guess: it helps to place an engine of which nothing else is known, and refuses none
(app/supervisor/capacity/placement.py).
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Final

from backends.config.base import BackendConfig
from backends.errors import BackendError
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.gguf import model_file
from backends.llama_cpp.gguf_header import Unreadable, shape
from backends.vllm.config import VllmConfig

_GB: Final = 1e9
# Its process and buffers. Measured with SmolLM2-135M: 0.055 GB at the start; the buffer for one batch's logits of a
# large vocabulary adds 0.26 (512 × 128k × 4 bytes).
_LLAMA_GB: Final = 0.3
_KV_BYTES: Final = 2  # llama.cpp keeps keys and values as f16
# Server, core and worker: measured with a model of half a million parameters on vLLM's CPU build; one more worker.
_VLLM_GB: Final = 1.7
_WORKER_GB: Final = 0.6
_VLLM_SHARE: Final = 0.92  # vLLM's default of gpu_memory_utilization, which on a CPU is a share of the host's memory
_BYTES: Final = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}


def estimated_gb(config: BackendConfig, host_gb: float) -> float | None:
    """In GB, for an engine that runs on the CPU; None where the files are not here or say too little.

    llama.cpp: the file + the KV cache + 0.3. The cache has 2 bytes for each of (key length + value length) × KV heads ×
    layers of each token, and tokens = context × slots (GGUF's own figures; checked with SmolLM2-135M: 0.91 GB measured
    at 4 slots of 8,192 tokens, 0.85 + 0.055 counted). The cache of earlier prompts, 0.5 GB at most, grows later and is
    not counted.

    vLLM: the weights in its `dtype` + the KV cache of each worker + 1.7 for its processes. Without a size of the cache
    (`kv_cache_memory_bytes`, or VLLM_CPU_KVCACHE_SPACE in `env`, in GiB) each worker takes its share
    (`gpu_memory_utilization`) of the host's memory in all (vllm/v1/worker/cpu_worker.py).
    """
    match config:
        case LlamaCppConfig():
            return _llama_cpp(config)
        case VllmConfig():
            return _vllm(config, host_gb)
        case _:
            return None


def _llama_cpp(config: LlamaCppConfig) -> float | None:
    try:
        path = model_file("", config.model)
        size_gb = path.stat().st_size / _GB
        found = shape(path)
    except (BackendError, OSError, Unreadable):
        return None
    tokens = (config.context_length or found.context_length) * config.slots
    return size_gb + found.kv_width * tokens * _KV_BYTES / _GB + _LLAMA_GB


def demanded_gb(config: BackendConfig, host_gb: float) -> float | None:
    """The memory that must be free when a vLLM starts on the CPU: with less it ends, however little it would take."""
    if not isinstance(config, VllmConfig) or not config.is_on_one_machine:
        return None
    cache = _cache(config)
    return cache / _GB if cache is not None else (config.gpu_memory_utilization or _VLLM_SHARE) * host_gb


def _cache(config: VllmConfig) -> int | None:
    with contextlib.suppress(ValueError):
        return int(config.env.get("VLLM_CPU_KVCACHE_SPACE", "")) * 2**30
    return config.kv_cache_memory_bytes


def _vllm(config: VllmConfig, host_gb: float) -> float | None:
    workers = config.gpus_each()
    if workers is None:
        return None
    cache = _cache(config)
    if cache is None:
        return (config.gpu_memory_utilization or _VLLM_SHARE) * host_gb * workers
    weights = weights_gb(config)
    if weights is None:
        return None
    copies = config.data_parallel_size
    loaded = weights * _growth(config) * copies
    return loaded + cache * workers / _GB + _VLLM_GB * copies + _WORKER_GB * (workers - copies)


def _growth(config: VllmConfig) -> float:
    """How much larger the weights are in memory than on disk."""
    told: Any = None
    with contextlib.suppress(OSError, ValueError):
        told = json.loads((Path(config.model).expanduser() / "config.json").read_bytes())
    if not isinstance(told, dict) or config.quantization is not None or "quantization_config" in told:
        return 1.0
    stored = _BYTES.get(str(told.get("dtype") or told.get("torch_dtype")))
    wanted = _BYTES.get(str(config.dtype))
    return wanted / stored if stored and wanted else 1.0


def weights_gb(config: BackendConfig) -> float | None:
    """The size of its weights on disk, in GB; None where they are not here or not known. Blocks: it looks at files."""
    with contextlib.suppress(BackendError, OSError):
        match config:
            case LlamaCppConfig():
                return model_file("", config.model).stat().st_size / 1e9
            case VllmConfig():
                folder = Path(config.model).expanduser()
                files = list(folder.glob("*.safetensors")) or list(folder.glob("*.bin"))
                return sum(file.stat().st_size for file in files) / 1e9 if files else None
            case _:
                return None
    return None
