"""Which environment variables are read, and by what they are probably meant where they are not. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from app.config.settings import Settings
from backends.inspection import Inspection
from backends.process.process import inherited

# What begins so is meant for a gateway, or for what stands beside it.
OURS: Final = "MODELPORT_"
# Others use these beginnings too: only what is like a name of ours is probably meant for us.
SHARED: Final = ("API_", "FASTAPI_")
_CLOSE: Final = 0.7
# Of the same beginnings, what others than `modelport serve` read: `modelport api` and processes that we start; Compose;
# make and the tests.
_OTHERS: Final = frozenset(
    {
        *("API_VERBOSE", "MODELPORT_MARK", "MODELPORT_ENGINE_KEY"),
        *("MODELPORT_CONFIG_FOLDER", "MODELPORT_MODELS_FOLDER", "MODELPORT_BASE"),
        *("OLLAMA_IMAGE", "VLLM_IMAGE", "VLLM_MODEL", "VLLM_SHM"),
        *("MODELPORT_VLLM_ENV", "MODELPORT_VLLM_MODELS", "MODELPORT_EMBEDDER", "MODELPORT_TEST_OLLAMA"),
        *("MODELPORT_CLIENTS_ENV", "MODELPORT_AGENTS_ENV", "MODELPORT_CHROMIUM", "MODELPORT_LM_EVAL"),
        "MODELPORT_SCREENSHOTS",
    }
)
# The daemon's own, and the gateway's one (OLLAMA_HOST).
OLLAMA: Final = frozenset(
    f"OLLAMA_{name}"
    for name in (
        *("API_KEY", "AUTH", "CONTEXT_LENGTH", "DEBUG", "DEBUG_LOG_REQUESTS", "EDITOR", "FLASH_ATTENTION"),
        *("GPU_OVERHEAD", "HOST", "IGPU_ENABLE", "INTEL_GPU", "KEEP_ALIVE", "KV_CACHE_TYPE", "LIBRARY_PATH"),
        *("LLM_LIBRARY", "LOAD_TIMEOUT", "MAX_LOADED_MODELS", "MAX_QUEUE", "MAX_VRAM", "MODELS", "MULTIUSER_CACHE"),
        *("NEW_ENGINE", "NOHISTORY", "NOPRUNE", "NO_CLOUD", "NUM_PARALLEL", "ORIGINS", "REMOTES", "RUNNERS_DIR"),
        *("SCHED_SPREAD", "TMPDIR", "VERSION", "VULKAN"),
    )
)
# Of OpenTelemetry's what is about metrics, logs and Python's own agents: nobody expects the gateway to read it.
_NOT_OF_TRACES: Final = re.compile(r"OTEL_.*(METRIC|LOG|BLRP|PYTHON|INSTRUMENTATION)")


class Unread(NamedTuple):
    """A variable that is set and that nothing reads. `nearest`: the one that is probably meant; `backend`: an engine
    that would read it and does not inherit it.
    """

    name: str
    nearest: str | None = None
    backend: str | None = None


def known() -> frozenset[str]:
    """Those that `modelport` itself reads."""
    return frozenset(name.upper() for name in Settings.model_fields) | _OTHERS


def unread(
    env: Mapping[str, str], named: Collection[str], inspections: Sequence[tuple[str | None, Inspection]]
) -> Iterator[Unread]:
    """Those of `env` that are meant for us or our engines and that nobody reads. `named`: those that the configuration
    fills in itself.
    """
    read = known()
    for name in sorted(env):
        if name in named or name.upper() in read:
            continue
        if name.upper().startswith(OURS):
            yield Unread(name, _nearest(name, read))
        elif name.upper().startswith(SHARED):
            if close := _nearest(name, [each for each in read - _OTHERS if each.startswith(SHARED)], _CLOSE):
                yield Unread(name, close)
        elif name.startswith("OLLAMA_") and name not in OLLAMA:
            yield Unread(name, _nearest(name, OLLAMA))
        elif name.startswith("OTEL_") and not _NOT_OF_TRACES.match(name):
            yield Unread(name, _nearest(name, read))
        elif not inherited({name: ""}):
            for backend, each in inspections:
                if backend is not None and name.startswith(each.variables or ("\0",)) and name not in each.env:
                    yield Unread(name, backend=backend)
                    break


def misspelt(env: Mapping[str, str]) -> Iterator[Unread]:
    """Those that look like one of ours and do not begin as these do: MODLEPORT_STATE, MODELPORTSTATE."""
    read = {name for name in known() if name.startswith("MODELPORT_")}
    for name in sorted(env):
        if not name.upper().startswith((OURS, *SHARED)) and "PORT" in name.upper():
            close = difflib.get_close_matches(name.upper(), sorted(read), n=1, cutoff=0.85)
            if close:
                yield Unread(name, close[0])


def _nearest(name: str, read: Collection[str], cutoff: float = 0.6) -> str | None:
    close = difflib.get_close_matches(name.upper(), sorted(read), n=1, cutoff=cutoff)
    return close[0] if close else None
