"""What an operator writes for a backend of kind `ollama`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from backends.config.base import ManagedConfig
from backends.config.fields import DaemonUrl, Words


class OllamaConfig(ManagedConfig):
    """An Ollama daemon: one that somebody else runs, or, where it is `managed`, one of ours."""

    kind: Literal["ollama"]
    url: DaemonUrl = Field("http://127.0.0.1:11434", description="Where the daemon listens; a `/v1` is taken off.")
    managed: bool = Field(False, description="Start a daemon of our own, on a free port; `url` is not used then.")
    command: Words = Field(("ollama",), min_length=1, description="How a managed daemon's program is called.")
    models_folder: str | None = Field(
        None, min_length=1, description="Where a managed daemon keeps its models; default: where Ollama does."
    )
    num_parallel: int = Field(
        1, ge=1, le=1024, description="Requests that a model works on at the same time (OLLAMA_NUM_PARALLEL)."
    )
    num_ctx: int | None = Field(
        None, ge=16, description="Tokens of context of each model; default: its Modelfile's, else the model's own."
    )
    num_ctx_by_model: dict[Annotated[str, Field(min_length=1, max_length=256)], Annotated[int, Field(ge=16)]] = Field(
        default_factory=dict, description="The same for single models, by the daemon's names."
    )
    max_num_ctx: int = Field(
        8192, ge=16, description="The most tokens of context where neither the file nor the Modelfile names any."
    )
    shift: bool = Field(
        False,
        description="Whether an answer that fills the context goes on while the oldest half of it is forgotten, as for "
        "the daemon's other clients; otherwise it ends there.",
    )
    keep_alive_s: float | None = Field(
        None,
        ge=-1,
        le=31_536_000,
        description="Idle for so long, a model is unloaded; -1: never. Default: as the daemon is set, or "
        "`unload_after_s`.",
    )

    @model_validator(mode="after")
    def _only_where_managed(self) -> Self:
        given = self.model_fields_set & {"command", "models_folder", *ManagedConfig.__annotations__}
        if given and not self.managed:
            raise ValueError(f"'{min(given)}' is for a daemon that the gateway runs: add `managed: true`")
        return self

    def as_managed(self) -> ManagedConfig | None:
        """This configuration, where we run the daemon; None where somebody else does."""
        return self if self.managed else None

    def address(self) -> Mapping[str, object]:
        """Its URL."""
        return {"url": self.url}

    def limit(self) -> int:
        """`max_in_flight`, else `num_parallel`, and 4 at least, as it may work on several models. Never None: once a
        model is loaded, the daemon itself queues without a limit.
        """
        return self.max_in_flight or max(4, self.num_parallel)

    def idle_s(self) -> float | None:
        """Seconds for which the daemon is to keep a model after a request; negative: for ever, None: as it is set."""
        if self.keep_alive_s is not None:
            return self.keep_alive_s
        return self.unload_after_s if self.managed else None
