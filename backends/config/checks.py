"""Settings of one engine that cannot be meant together, each as the key to change and a sentence: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from backends.config.base import BackendConfig, ManagedConfig
from backends.vllm.config import VllmConfig

Found = Iterator[tuple[str, str]]

_PARALLEL: Final = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
# Flags that say which GPUs are used: an engine that is placed without knowing them meets others there.
_SETTINGS: Final = {
    "--tensor-parallel-size": "tensor_parallel_size",
    "--pipeline-parallel-size": "pipeline_parallel_size",
    "--data-parallel-size": "data_parallel_size",
    "--gpu-memory-utilization": "gpu_memory_utilization",
    "-tp": "tensor_parallel_size",
    "-pp": "pipeline_parallel_size",
    "-dp": "data_parallel_size",
}
# Chosen anew for every start, or what its engine is reached by.
_OURS: Final = {
    "--host": "it listens on this machine only",
    "--port": "each start has a port of its own",
    "--uds": "it is reached by a port",
    "--api-key": "each start has a key of its own",
    "--served-model-name": "its model has the backend's name there, and what clients call it stands under `models`",
    "--headless": "the setting `node_rank` says which machine answers",
    "--ssl-keyfile": "it is spoken to on this machine only, without TLS",
    "--ssl-certfile": "it is spoken to on this machine only, without TLS",
}
_SHORTEST: Final = len("--ho")  # an abbreviation of one of them
_ROUNDING: Final = 1e-6


def contradictions(backend: BackendConfig) -> Found:
    """All of them. Whether the devices are there, and free, is placement's to say."""
    config = backend.as_managed()
    if config is None:
        return
    if isinstance(config, VllmConfig):
        yield from _parallel(config)
    if config.devices != "auto":
        yield from _devices(config)


def _parallel(config: VllmConfig) -> Found:
    workers = config.tensor_parallel_size * config.pipeline_parallel_size * config.data_parallel_size
    if workers % config.nnodes and config.distributed_executor_backend != "ray":
        yield "nnodes", f"{workers} workers cannot be spread evenly over {config.nnodes} machines"
    for key, words in (("args", config.args), ("command", config.command[1:])):
        for word in words:
            flag = word.partition("=")[0]
            if (name := _meant(flag, _OURS)) is not None:
                yield key, f"{flag} is the gateway's own: {_OURS[name]}. Leave it out"
            elif (name := _meant(flag, _SETTINGS)) is not None:
                setting = _SETTINGS[name]
                yield key, f"{flag} is the setting `{setting}`: write it there, so that the engine gets its GPUs"


def _meant(flag: str, known: Iterable[str]) -> str | None:
    """Which of these flags a word is for vLLM, which takes `_` for `-` and any beginning that is clear."""
    said = flag.replace("_", "-")
    is_short = len(said) < _SHORTEST or not said.startswith("--")
    return next((name for name in known if name == said or (not is_short and name.startswith(said))), None)


def _devices(config: ManagedConfig) -> Found:
    wrong = _misnamed(config.named_devices, config.gpus_each() or len(config.named_devices) // config.replicas, config)
    if wrong is not None:
        yield "devices", wrong


def _misnamed(named: Sequence[str], each: int, config: ManagedConfig) -> str | None:
    """`each`: GPUs that one of the replicas needs."""
    replicas, count = config.replicas, "1 GPU" if len(named) == 1 else f"{len(named)} GPUs"
    again = next((name for at, name in enumerate(named) if name in named[:at]), None)
    has_mig = any(name.startswith("MIG-") for name in named)
    if not named:
        return "is empty: name a GPU, or write auto"
    if again is not None:
        return f"names {again} twice"
    if has_mig and (each > 1 or len(named) > replicas):
        return "a MIG device serves one engine alone, without tensor parallel: name one for each engine"
    if len(named) == each * replicas:
        return None
    if replicas == 1:
        return f"names {count}, and {_sizes(config)}: {_advice(config, each)}"
    if len(named) != each:
        one, total = max(each, 1), max(each, 1) * replicas
        return f"names {count}, and each of its {replicas} replicas needs {one}: name {total}, or write auto"
    if has_mig or config.need().share * replicas > 1 + _ROUNDING:
        share = "" if has_mig else f", or set gpu_memory_utilization to {1 / replicas:.2g} or less"
        return f"names {count}, where {replicas} replicas have no room together: name {each * replicas}{share}"
    return None


def _sizes(config: ManagedConfig) -> str:
    sizes = [f"{key} {size}" for key in _PARALLEL if (size := getattr(config, key, 1)) > 1]
    return f"{' × '.join(sizes)} needs {config.gpus_each()} on this machine" if sizes else "it runs on 1"


def _advice(config: ManagedConfig, each: int) -> str:
    count = len(config.named_devices)
    is_simple = all(getattr(config, key, 1) == 1 for key in (*_PARALLEL[1:], "nnodes"))
    return f"name {each}, or write auto" + (f", or set tensor_parallel_size to {count}" if is_simple else "")
