"""Settings of one backend that cannot be meant together, each as the key to change and a sentence: pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from backends.config.base import BackendConfig, ManagedConfig

_ROUNDING: Final = 1e-6


def contradictions(backend: BackendConfig) -> Iterator[tuple[str, str]]:
    """All of them. Whether the devices are there, and free, is placement's to say."""
    config = backend.as_managed()
    if config is None:
        return
    yield from config.contradictions()
    if config.devices != "auto":
        yield from _devices(config)


def _devices(config: ManagedConfig) -> Iterator[tuple[str, str]]:
    each = config.gpus_each() or len(config.named_devices) // config.replicas
    problem = _device_problem(config.named_devices, each, config)
    if problem is not None:
        yield "devices", problem


def _device_problem(named: Sequence[str], each: int, config: ManagedConfig) -> str | None:
    """`each`: GPUs that one of the replicas needs."""
    replicas, count = config.replicas, "1 GPU" if len(named) == 1 else f"{len(named)} GPUs"
    repeated = next((name for at, name in enumerate(named) if name in named[:at]), None)
    has_mig = any(name.startswith("MIG-") for name in named)
    if not named:
        return "is empty: name a GPU, or write auto"
    if repeated is not None:
        return f"names {repeated} twice"
    if has_mig and (each > 1 or len(named) > replicas):
        return "a MIG device serves one engine alone, without tensor parallel: name one for each engine"
    if len(named) == each * replicas:
        return None
    if replicas == 1:
        setting = config.setting_for_gpus(len(named))
        advice = f"name {each}, or write auto" + (f", or set {setting}" if setting is not None else "")
        return f"names {count}, and {config.gpus_in_words()}: {advice}"
    if len(named) != each:
        one, total = max(each, 1), max(each, 1) * replicas
        return f"names {count}, and each of its {replicas} replicas needs {one}: name {total}, or write auto"
    if has_mig or config.need().share * replicas > 1 + _ROUNDING:
        setting = None if has_mig else config.setting_for_share(1 / replicas)
        advice = f"name {each * replicas}" + (f", or set {setting}" if setting is not None else "")
        return f"names {count}, where {replicas} replicas do not fit together: {advice}"
    return None
