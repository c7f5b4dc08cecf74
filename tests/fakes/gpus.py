"""Two GPUs where there are none: `python -m tests.fakes.gpus VERB …` is `python -m app VERB …` on such a machine.

A stand-in for nvidia-ml-py's module `pynvml`, as the gateway uses it. Nothing runs on these GPUs, their memory never
changes, and how busy they are goes up and down.
"""

from __future__ import annotations

import sys
import time
from types import ModuleType, SimpleNamespace

import pynvml  # type: ignore[import-untyped]

COUNT = 2
TOTAL_BYTES = 80_000_000_000
USED_BYTES = 3_000_000_000


class _NoGpus(ModuleType):
    NVMLError = pynvml.NVMLError

    def nvmlInit(self) -> None:
        pass

    def nvmlShutdown(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return COUNT

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        return [0, 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:
        return 0

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle:08x}-0000-4000-8000-000000000000"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=TOTAL_BYTES, used=USED_BYTES, free=TOTAL_BYTES - USED_BYTES)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=int(time.monotonic() * 10 + 40 * handle) % 100, memory=10)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        return []

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        return []


def main() -> None:
    """Run the gateway's command line before these GPUs."""
    from app.__main__ import main as command_line

    sys.modules["pynvml"] = _NoGpus("pynvml")
    command_line()


if __name__ == "__main__":
    main()
