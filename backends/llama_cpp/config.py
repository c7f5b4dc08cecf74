"""What an operator writes for a backend of kind `llama_cpp`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from pydantic import Field

from backends.config.base import ManagedConfig
from backends.engine import Need


class LlamaCppConfig(ManagedConfig):
    """The embedded engine: llama.cpp's server in a child process, one GGUF file."""

    kind: Literal["llama_cpp"]
    model: str = Field(
        description="A GGUF file, or `package:NAME` for the GGUF file inside an installed Python package.", min_length=1
    )
    task: Literal["generate", "embed", "rerank"] = Field(
        "generate", description="What the model does: text, embeddings, or the order of texts."
    )
    context_length: int | None = Field(None, ge=16, description="Tokens of context per slot; default: the model's own.")
    slots: int = Field(4, ge=1, le=256, description="Requests that run at the same time; more wait in the gateway.")
    threads: int | None = Field(None, ge=1, le=1024, description="Threads that compute; default: the cores we may use.")
    chat_template: str | None = Field(None, description="A Jinja file; default: the template in the model's file.")
    gpu_layers: int = Field(0, ge=-1, description="Layers on a GPU where the build has one; -1: all.")

    def limit(self) -> int:
        """`max_in_flight`, else its slots."""
        return self.max_in_flight or self.slots

    def cores(self, usable: int, *, is_on_cpu: bool) -> int:
        """Its threads."""
        return min(self.threads or usable, usable) if is_on_cpu else 1

    def is_cpu_only(self) -> bool:
        """Without layers on a GPU."""
        return not self.gpu_layers

    def need(self) -> Need:
        """Host memory; and a GPU where layers are to be on one."""
        need = super().need()
        return need if need.named or not self.gpu_layers else dataclasses.replace(need, gpus=1)
