"""nvidia-ml-py's functions as it documents them, for GPUs that the variable FAKE_NVML describes.

FAKE_NVML is JSON: a list of {"uuid", "total", "used", "busy"}, sizes in bytes, `busy` in percent. As the gateway starts
engines on GPUs that it sees, give it none that wants one.
"""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """What every function raises."""


def _gpus() -> list[dict[str, Any]]:
    gpus: list[dict[str, Any]] = json.loads(os.environ.get("FAKE_NVML", "[]"))
    return gpus


def nvmlInit() -> None:
    if not _gpus():
        raise NVMLError("Driver Not Loaded")


def nvmlShutdown() -> None:
    pass


def nvmlDeviceGetCount() -> int:
    return len(_gpus())


def nvmlDeviceGetHandleByIndex(index: int) -> dict[str, Any]:
    return _gpus()[index]


def nvmlDeviceGetMigMode(handle: dict[str, Any]) -> list[int]:
    raise NVMLError("Not Supported")


def nvmlDeviceGetUUID(handle: dict[str, Any]) -> str:
    return str(handle["uuid"])


def nvmlDeviceGetMemoryInfo(handle: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(total=handle["total"], used=handle["used"], free=handle["total"] - handle["used"])


def nvmlDeviceGetUtilizationRates(handle: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(gpu=handle["busy"], memory=handle["busy"])


def nvmlDeviceGetComputeRunningProcesses(handle: dict[str, Any]) -> list[Any]:
    return []


def nvmlDeviceGetGraphicsRunningProcesses(handle: dict[str, Any]) -> list[Any]:
    return []
