"""What an operator writes under `backends:`; one class per kind. Checked before the first port opens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from backends.config.fields import GB, Address, BaseUrl, Credential, Device, Headers, Seconds, Words
from backends.endpoint import Need, Timeouts


class TimeoutsConfig(BaseModel):
    """How long a request waits for this engine, in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connect_s: Seconds = Field(5.0, description="For a connection to the engine.")
    first_byte_s: Seconds = Field(
        600.0, description="For the first byte of its answer; then 504 and the work is cancelled."
    )
    between_events_s: Seconds = Field(
        120.0, description="Between two pieces of an answer; then the stream ends with an error."
    )

    def values(self) -> Timeouts:
        """The same, as the data path carries it."""
        return Timeouts(self.connect_s, self.first_byte_s, self.between_events_s)


class BackendConfig(BaseModel):
    """What every kind has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeouts: TimeoutsConfig = Field(
        default_factory=TimeoutsConfig, description="How long a request waits for this engine."
    )
    max_in_flight: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Requests that the engine has at the same time; more wait here. Default: `slots` of a llama_cpp, "
        "`num_parallel` and at least 4 of ollama, no limit for the others.",
    )
    max_waiting: int = Field(
        256,
        ge=0,
        le=1_000_000,
        description="Requests that may wait for its start (more are answered 503), and for a place (429).",
    )
    max_wait_s: Seconds | None = Field(
        None, description="A wait longer than this, or expected to be, is refused; default: `server.wait_s`."
    )

    def limit(self) -> int | None:
        """Requests that it has at the same time; None: as many as come."""
        return self.max_in_flight

    def media_domains(self) -> tuple[str, ...]:
        """Hosts that it may fetch pictures and sounds from."""
        return ()

    def as_managed(self) -> ManagedConfig | None:
        """The same, where it is about a process that we run."""
        return None


class ManagedConfig(BackendConfig):
    """What every kind has whose process we run."""

    start: Literal["boot", "demand"] = Field(
        "boot", description="`boot`: with the gateway; `demand`: when the first request asks for it."
    )
    start_timeout_s: Seconds = Field(
        600.0, description="A start that is not ready by then is ended and counts as failed."
    )
    stop_grace_s: Seconds = Field(10.0, description="Between TERM and KILL when the engine is stopped.")
    env: dict[str, str] = Field(default_factory=dict, description="More environment variables for the engine.")
    memory_gb: GB | None = Field(
        None, description="Host memory it takes, in GB, counted against `server.memory_gb`; default: a guess."
    )
    devices: Literal["auto"] | tuple[Device, ...] = Field(
        "auto", description="GPUs for it and its replicas: indices, `GPU-…` or `MIG-…`; `auto`: free ones."
    )
    unload_after_s: Seconds | None = Field(
        None, description="Idle for so long, it is put to sleep or stopped, until the next request; default: never."
    )
    pinned: bool = Field(False, description="Never stopped to make room for another engine.")
    replicas: int = Field(1, ge=1, le=64, description="Independent engines of this one entry that share its requests.")
    start_stall_s: Seconds = Field(
        300.0, description="A start that neither prints nor reads nor writes for so long is ended and counts as failed."
    )
    stall_timeout_s: Seconds = Field(
        120.0,
        description="Requests run and nothing moves for so long: a test token, and a restart when that fails too.",
    )

    @property
    def named_devices(self) -> tuple[str, ...]:
        """The GPUs as they are written under `devices`, for all replicas together; empty: any."""
        return () if self.devices == "auto" else tuple(str(device) for device in self.devices)

    def gpus_each(self) -> int | None:
        """GPUs that one engine uses; None: as many as are named for it."""
        return None

    def as_managed(self) -> ManagedConfig | None:
        """The same, where it is about a process that we run."""
        return self

    def need(self) -> Need:
        """What one start takes of the machine."""
        named = self.named_devices
        return Need(memory_gb=self.memory_gb or 0.0, gpus=self.gpus_each() or len(named), named=named)

    def workers(self) -> int:
        """Processes of one start that exchange data through shared memory; 1: none."""
        return 1

    def sleep_level(self) -> int:
        """How it sleeps instead of being stopped; 0: it does not."""
        return 0

    def adapter_paths(self) -> Mapping[str, str]:
        """Its adapters by public name."""
        return {}


class AdaptableConfig(ManagedConfig):
    """What every kind has that can sleep and take adapters while it runs."""

    sleep: Literal[1, 2] | None = Field(
        None, description="Put to sleep instead of stopped: 1 keeps the weights in host memory, 2 forgets them."
    )
    adapters: dict[Annotated[str, Field(min_length=1, max_length=256)], str] = Field(
        default_factory=dict, description="Adapters (LoRA) by public name, with their folders."
    )

    def sleep_level(self) -> int:
        """How it sleeps instead of being stopped; 0: it does not."""
        return self.sleep or 0

    def adapter_paths(self) -> Mapping[str, str]:
        """Its adapters by public name."""
        return self.adapters


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
    gpu_layers: int = Field(0, ge=-1, description="Layers on a GPU where the build has one; -1: all.")

    def limit(self) -> int:
        """Its slots, unless more are to wait in the engine."""
        return self.max_in_flight or self.slots

    def need(self) -> Need:
        """Host memory; a GPU where layers are to be on one."""
        need = super().need()
        return need if need.named or not self.gpu_layers else dataclasses.replace(need, gpus=1)


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
        """Those of its setting."""
        return tuple(host.lower() for host in self.allowed_media_domains)

    @property
    def takes_adapters(self) -> bool:
        """Whether it is started for them."""
        return self.enable_lora or bool(self.adapters)

    @property
    def is_on_one_machine(self) -> bool:
        """Whether all its processes are ours."""
        return self.nnodes == 1 and self.distributed_executor_backend != "ray"

    def workers(self) -> int:
        """Those of tensor and pipeline parallelism on this machine; Ray has its own."""
        if self.distributed_executor_backend == "ray":
            return 1
        return max(1, self.tensor_parallel_size * self.pipeline_parallel_size // self.nnodes)

    def gpus_each(self) -> int | None:
        """One for each worker on this machine; Ray places its own."""
        if self.distributed_executor_backend == "ray":
            return None
        workers = self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size
        return max(1, workers // self.nnodes)

    def need(self) -> Need:
        """Whole GPUs, unless their share is given."""
        return dataclasses.replace(super().need(), share=self.gpu_memory_utilization or 1.0)


class RemoteConfig(BackendConfig):
    """An OpenAI-compatible endpoint that somebody else runs, or several of one model: `url` or `urls`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["url"]}, {"required": ["urls"]}]})

    kind: Literal["remote"]
    url: BaseUrl | None = Field(None, description="Its base URL, as an SDK takes it: usually ends in `/v1`.")
    urls: tuple[BaseUrl, ...] = Field((), description="Several instead, which share the requests.")
    addresses: Literal["dns"] | tuple[Address, ...] | None = Field(
        None,
        description="Where the host of `url` is, each address an engine of its own; `dns`: as its name has them.",
    )
    api_key: Credential | None = Field(
        None, description="Sent as `Authorization: Bearer`; use ${NAME} to take it from the environment."
    )
    headers: Headers = Field(default_factory=dict, description="More headers to send.")
    context_length: int | None = Field(
        None, ge=1, description="Tokens of context of its models, where its list of models does not say."
    )

    @property
    def base_url(self) -> str:
        """The first of them."""
        return (self.url or self.urls[0]).rstrip("/")

    def engines(self) -> tuple[RemoteConfig, ...]:
        """Each engine with a configuration of its own."""
        if self.urls:
            return tuple(self.model_copy(update={"url": url, "urls": ()}) for url in self.urls)
        if isinstance(self.addresses, tuple) and self.addresses:
            return tuple(self.model_copy(update={"addresses": (address,)}) for address in self.addresses)
        return (self,)
