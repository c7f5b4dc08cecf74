"""Why vLLM did not start, or ended: one sentence with the remedy, from the last lines that it printed. Pure.

The texts are those of vLLM 0.32, transformers 5, huggingface_hub and PyTorch 2.13. The first that matches is the
sentence, so what says more stands before what says less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from backends.process.exit_reasons import why

# What can also end one that serves.
_MEMORY: Final = (
    (
        r"CUDA out of memory|OutOfMemoryError|HIP out of memory|CUDA error: out of memory",
        "the GPU's memory is not enough: lower `max_model_len` or `max_num_seqs`, use more GPUs "
        "(`tensor_parallel_size`), or a quantised model",
    ),
    (
        r"(?:/dev/shm|shared memory)[^\n]*(?:insufficient|not enough|too small)|Insufficient[^\n]*(?:/dev/shm|SHM)"
        r"|No space left on device[^\n]*(?:shm|psm_)|Bus error",
        "the shared memory is too small: start the container with --shm-size=8g or --ipc=host",
    ),
    (r"No space left on device", "a disk is full"),
    (
        r"MemoryError|Cannot allocate memory|DefaultCPUAllocator: can't allocate memory|bad_alloc",
        "the memory of this machine is not enough for the model",
    ),
)  # fmt: skip
_WORK: Final = (
    (r"NCCL error|ncclSystemError|ncclUnhandledCudaError", "its GPUs cannot talk to each other (NCCL); see its log"),
    (
        r"Fatal Python error: Illegal instruction",
        "a kernel of this build of vLLM does not run on this processor: try another `dtype`, or another build",
    ),
    (r"Fatal Python error: ([^\n]{1,60})", "one of its processes crashed ({0}); see its log"),
    (r"Worker proc \S+ died unexpectedly", "one of its worker processes died; see its log"),
    (r"EngineDeadError|EngineCore encountered an issue", "its core process died; see its log"),
)  # fmt: skip
_SERVING: Final = (*_MEMORY, *_WORK)
# What depends on other programs on this machine.
_OTHERS: Final = (
    (
        r"Free memory on device \S* ?\(([\d.]+)/([\d.]+) GiB\) on startup is less than desired[^\n]*\(([\d.]+),",
        "other programs hold the GPU's memory ({0} of {1} GiB are free): end them, or lower `gpu_memory_utilization` "
        "from {2}",
    ),
    (
        r"Available memory on node \S* ?\(([\d.]+)/([\d.]+) GiB\) on startup is less than desired"
        r"[^\n]*\(([\d.]+), ([\d.]+) GiB\)",
        "it wants {3} GiB of this machine's memory (`gpu_memory_utilization: {2}`, which counts on a CPU too) and {0} "
        "of {1} GiB are free: end other programs, lower `gpu_memory_utilization`, or set `kv_cache_memory_bytes`",
    ),
    (
        r"Available memory on node[^\n]*is less than desired",
        "the memory of this machine is not enough for the share it wants: lower `gpu_memory_utilization`, which counts "
        "on a CPU too, or set `kv_cache_memory_bytes`",
    ),
)
_HUB: Final = (
    (
        r"LocalEntryNotFoundError|couldn't connect to 'https://|OfflineModeIsEnabled|offline mode is enabled"
        r"|Temporary failure in name resolution|Max retries exceeded|cannot send a request, as the client",
        "the model is not on this machine and the hub cannot be reached: download it, and name its folder",
    ),
)
_MACHINE: Final = (
    (r"Address already in use|address already in use|EADDRINUSE", "its port is taken by another program"),
    (
        r"No CUDA GPUs are available|Failed to infer device type|Found no NVIDIA driver|libcuda\.so",
        "vLLM finds no GPU: check the driver, `devices`, and that its build is for this machine",
    ),
)
_PASSING: Final = (*_SERVING, *_OTHERS, *_HUB, *_MACHINE)
_MEANINGS: Final = (
    # Its command line and its environment.
    (r"error: unrecognized arguments: (\S+)", "this version of vLLM does not know the argument {0}: see `args`"),
    (r"error: argument ([^:]+): (?:expected|invalid)[^\n]*", "vLLM does not accept the value of {0}: see `args`"),
    (r"invalid tool call parser: (\S+)", "vLLM has no tool call parser {0}: set `tool_call_parser`"),
    (r"invalid reasoning parser: (\S+)", "vLLM has no reasoning parser {0}: set `reasoning_parser`"),
    (r"cannot start [^\n]*: No such file", "its command is not there: set `command` to the vllm of its environment"),
    (r"No module named '?(vllm)\b", "vLLM is not installed where `command` looks for it"),
    (r"No module named '?([\w.]+)", "the Python package {0} is missing in vLLM's environment"),
    (r"cannot import name '(\w+)' from '([\w.]+)'", "the packages in vLLM's environment do not match: {1} has no {0}"),
    (
        r"No working C\+\+ compiler found|InvalidCxxCompiler|Failed to find C compiler",
        "it compiles code for `logprobs`, and there is no compiler: install g++, or set `warm_up_logprobs: false` and "
        "let no client ask for `logprobs`, which would end it",
    ),
    (r"chat template string[^\n]*appears path-like", "the file named by `chat_template` is not there"),
    # Memory.
    (
        r"estimated maximum model length is (\d+)",
        "the KV cache is too small for one request of full length: set `max_model_len` to {0} or less, "
        "or give it more memory (`gpu_memory_utilization`, `kv_cache_memory_bytes`)",
    ),
    (
        r"larger than the available KV cache memory|No available memory for the cache blocks",
        "no memory is left for the KV cache: raise `gpu_memory_utilization`, or use more GPUs or a smaller model",
    ),
    *_OTHERS,
    *_MEMORY,
    # The model.
    (
        r"max_model_len \((\d+)\) is greater than the derived max_model_len \(\w+=(\d+)",
        "`max_model_len` is {0}, and the model was made for {1} tokens at most",
    ),
    (
        r"gated repo|GatedRepoError|Access to model \S+ is restricted",
        "the model is gated: ask for access on its page on the hub and set `env: {{HF_TOKEN: …}}`",
    ),
    (
        r"RepositoryNotFoundError|is not a valid model identifier|Repository Not Found",
        "the hub has no such model, or it is private: check `model`, or set `env: {{HF_TOKEN: …}}`",
    ),
    (r"RevisionNotFoundError|Invalid rev id", "the hub has the model, but not this `revision`"),
    *_HUB,
    (
        r"has model type `?([\w.-]+)`? but Transformers does not recognize",
        "this version of vLLM does not know the architecture of the model ({0}): install a newer one",
    ),
    (
        r"Model architectures? \[?'?([\w.-]+)'?\]? (?:are|is) not supported|([\w.-]+) has no vLLM implementation",
        "this version of vLLM does not know the architecture of the model ({0}): install a newer one",
    ),
    (
        r"contains custom code which must be executed|trust_remote_code=True",
        "the model comes with code of its own: read it, then set `trust_remote_code: true`",
    ),
    (
        r"PermissionError: \[Errno 13\] Permission denied: '([^'\n]+)'",
        "the user that it runs as may not use '{0}': give that user the right to",
    ),
    (r"Repo id must be in the form", "the model's folder is not there: check `model`"),
    (r"Cannot find any model weights", "the model's folder holds no weights (*.safetensors)"),
    (
        r"SafetensorError|HeaderTooLarge|MetadataIncompleteBuffer|InvalidHeader|PytorchStreamReader failed",
        "a file with the model's weights is broken or incomplete: download it again",
    ),
    (
        r"Invalid repository ID or local directory|no config\.json|does not appear to have a file named config\.json"
        r"|Unrecognized model in",
        "the model's folder is not in Hugging Face layout: config.json is missing or incomplete",
    ),
    (
        r"Cannot find the config file for (\w+)|Quantization method specified in the model config \((\w+)\)",
        "the model's weights are not packed as `quantization` says",
    ),
    (r"Loading lora (\S+) failed", "the adapter {0} cannot be loaded"),
    # The machine.
    (
        r"NVIDIA driver on your system is too old|CUDA driver version is insufficient|no kernel image is available",
        "the GPU's driver is too old for this build of vLLM: update it, or install a build for its CUDA version",
    ),
    *_MACHINE,
    (
        r"World size \((\d+)\) is larger than the number of available GPUs \((\d+)\)",
        "it wants {0} GPUs and has {1}: lower `tensor_parallel_size`, or give it more `devices`",
    ),
    (
        r"Total number of attention heads \((\d+)\) must be divisible by tensor parallel size \((\d+)\)",
        "the model's {0} attention heads cannot be shared by {1} GPUs: change `tensor_parallel_size`",
    ),
    (r"(?:platform (\w+)|(Ray)) does not support ray", "vLLM runs with Ray on GPUs only: leave out "
     "`distributed_executor_backend: ray`"),
    *_WORK,
    (r"\d+ validation errors? for \w+\n\s+Value error, ([^\n\[]{1,200})", "vLLM refuses its settings: {0}"),
)  # fmt: skip


def explain(code: int, tail: Sequence[str], has_served: bool = False) -> str:
    """Why it exited with this code, in one sentence fit for a client: Explain of backends/engine.py."""
    return why(code, tail, _MEANINGS, _SERVING, has_served=has_served, passing=_PASSING)
