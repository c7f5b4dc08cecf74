"""What an operator writes for a backend of kind `vllm`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

from pydantic import Field

from backends.config.base import AdaptableConfig
from backends.config.fields import Words
from backends.engine import Need

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
    "--ssl-keyfile": "it is reached from this machine only, without TLS",
    "--ssl-certfile": "it is reached from this machine only, without TLS",
}
_SHORTEST: Final = len("--ho")  # an abbreviation of one of them


class VllmConfig(AdaptableConfig):
    """vLLM's own server, started in vLLM's own environment. What has no key here goes into `args`."""

    kind: Literal["vllm"]
    model: str = Field(
        description="A folder in Hugging Face layout, or the name of a repository on the hub.", min_length=1
    )
    command: Words = Field(
        ("vllm",),
        min_length=1,
        description="How vLLM is called: the `vllm` of its environment, or a list of words.",
    )
    revision: str | None = Field(None, description="The branch, tag or commit of a repository on the hub.")
    task: Literal["generate", "embed", "classify"] = Field(
        "generate", description="What the model does: text, embeddings or classes."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32", "half", "float"] | None = Field(
        None, description="Of weights and activations; default: the model's own."
    )
    quantization: str | None = Field(None, description="How the weights are packed; default: as the model says.")
    tensor_parallel_size: int = Field(1, ge=1, le=1024, description="GPUs that share every layer.")
    pipeline_parallel_size: int = Field(1, ge=1, le=1024, description="Groups of GPUs that share the layers in turn.")
    data_parallel_size: int = Field(1, ge=1, le=1024, description="Copies of the model behind one server.")
    distributed_executor_backend: Literal["mp", "ray", "uni", "external_launcher"] | None = Field(
        None, description="What runs the workers; `ray` for several machines in a Ray cluster."
    )
    nnodes: int = Field(1, ge=1, le=1024, description="Machines that serve this model together, without Ray.")
    node_rank: int = Field(0, ge=0, le=1023, description="Which of them this one is; 0 is the one that is asked.")
    master_addr: str | None = Field(None, description="The address of machine 0, as the others reach it.")
    max_model_len: int | None = Field(
        None, ge=1, description="Tokens of prompt and answer together; default: the model's own."
    )
    max_num_seqs: int | None = Field(None, ge=1, description="Requests that run at the same time; more wait.")
    gpu_memory_utilization: float | None = Field(
        None, gt=0, le=1, description="The share of each GPU's memory that it may use; without a GPU of the host's."
    )
    kv_cache_memory_bytes: int | None = Field(
        None, ge=1, description="Memory for the KV cache on each GPU, instead of what the share leaves over."
    )
    enforce_eager: bool = Field(False, description="No CUDA graphs: a faster start, slower answers.")
    chat_template: str | None = Field(None, description="A Jinja file; default: the model's own template.")
    tool_call_parser: str | None = Field(
        None, description="How the model writes tool calls; with it, tools are on (`tool_choice: auto`)."
    )
    reasoning_parser: str | None = Field(None, description="How the model writes its thinking.")
    override_generation_config: dict[str, Any] = Field(
        default_factory=dict, description="Sampling defaults over those of the model, such as {temperature: 0.7}."
    )
    seed: int | None = Field(None, ge=0, description="Of the random numbers.")
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")
    allowed_media_domains: tuple[str, ...] = Field(
        (), description="Hosts that pictures and sounds in requests may be fetched from; default: none."
    )
    enable_lora: bool = Field(
        False, description="Take adapters while it runs, also when none is configured; with `adapters` it is so anyway."
    )
    warm_up_logprobs: bool = Field(
        True,
        description="Its first request with `logprobs` is ours, before it serves: it compiles, and all others wait.",
    )
    args: Words = Field((), description="More arguments, as they are; the last word is theirs.")

    def media_domains(self) -> tuple[str, ...]:
        """The hosts of `allowed_media_domains`, in lower case."""
        return tuple(host.lower() for host in self.allowed_media_domains)

    @property
    def takes_adapters(self) -> bool:
        """Whether it is started so that it can take adapters."""
        return self.enable_lora or bool(self.adapters)

    @property
    def is_on_one_machine(self) -> bool:
        """Whether all its processes run on this machine, below ours."""
        return self.nnodes == 1 and self.distributed_executor_backend != "ray"

    def workers(self) -> int:
        """The workers of tensor and pipeline parallelism on this machine; with Ray 1, as Ray has its own."""
        if self.distributed_executor_backend == "ray":
            return 1
        return max(1, self.tensor_parallel_size * self.pipeline_parallel_size // self.nnodes)

    def cores(self, usable: int, *, is_on_cpu: bool) -> int:
        """All of them without a GPU, else one for its server, one for its core, and one for each of several workers."""
        if is_on_cpu:
            return usable
        return min(usable, 2 + (self.workers() if self.workers() > 1 else 0))

    def gpus_each(self) -> int | None:
        """One for each worker on this machine; None with Ray, which places its own."""
        if self.distributed_executor_backend == "ray":
            return None
        workers = self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size
        return max(1, workers // self.nnodes)

    def need(self) -> Need:
        """Whole GPUs, unless `gpu_memory_utilization` says which share of each."""
        return dataclasses.replace(super().need(), share=self.gpu_memory_utilization or 1.0)

    def gpus_in_words(self) -> str:
        """How many GPUs one engine uses and by which settings, for a message."""
        sizes = [f"{name} {size}" for name in _PARALLEL if (size := getattr(self, name)) > 1]
        return f"{' × '.join(sizes)} needs {self.gpus_each()} on this machine" if sizes else "it runs on 1"

    def setting_for_gpus(self, count: int) -> str | None:
        """Tensor parallelism, where nothing else spreads the model."""
        is_simple = all(getattr(self, name) == 1 for name in (*_PARALLEL[1:], "nnodes"))
        return f"tensor_parallel_size to {count}" if is_simple else None

    def setting_for_share(self, share: float) -> str:
        """The part of each GPU's memory."""
        return f"gpu_memory_utilization to {share:.2g} or less"

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Sizes that do not divide, and arguments that are the gateway's own or have a setting."""
        workers = self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size
        if workers % self.nnodes and self.distributed_executor_backend != "ray":
            yield "nnodes", f"{workers} workers cannot be spread evenly over {self.nnodes} machines"
        for key, words in (("args", self.args), ("command", self.command[1:])):
            for word in words:
                flag = word.partition("=")[0]
                if (name := _full_flag(flag, _OURS)) is not None:
                    yield key, f"{flag} is the gateway's own: {_OURS[name]}. Leave it out"
                elif (name := _full_flag(flag, _SETTINGS)) is not None:
                    setting = _SETTINGS[name]
                    yield key, f"{flag} is the setting `{setting}`: write it there, so that the engine gets its GPUs"


def _full_flag(flag: str, known: Iterable[str]) -> str | None:
    """Which of these flags a word is for vLLM, which takes `_` for `-` and any beginning that is clear."""
    spelled = flag.replace("_", "-")
    is_short = len(spelled) < _SHORTEST or not spelled.startswith("--")
    return next((name for name in known if name == spelled or (not is_short and name.startswith(spelled))), None)
