"""Why vLLM failed, in one sentence: from logs that it really printed, and from logs that users published."""

from __future__ import annotations

import pytest

from backends.process.exit_reasons import Settled
from backends.vllm.failures import explain
from tests import RECORDED

RECORDED = RECORDED / "vllm"
SENTENCES = {
    "cut_weights": "a file with the model's weights is broken or incomplete: download it again",
    "no_config": "the model's folder is not in Hugging Face layout: config.json is missing or incomplete",
    "no_folder": "the model's folder is not there: check `model`",
    "no_ray": "the Python package ray is missing in vLLM's environment",
    "no_weights": "the model's folder holds no weights (*.safetensors)",
    "not_on_this_machine": "the model is not on this machine and the hub cannot be reached: download it, and name its "
    "folder",
    "not_readable": "the user that it runs as may not use '/models/tuned/model.safetensors': give that user the right "
    "to",
    "port_taken": "its port is taken by another program",
    "small_cache": "the KV cache is too small for one request of full length: set `max_model_len` to 384 or less, or "
    "give it more memory (`gpu_memory_utilization`, `kv_cache_memory_bytes`)",
    "too_long": "`max_model_len` is 99999, and the model was made for 2048 tokens at most",
    "unknown_architecture": "this version of vLLM does not know the architecture of the model (FooForCausalLM): "
    "install a newer one",
    "unknown_argument": "this version of vLLM does not know the argument --no-such-flag: see `args`",
    "unknown_parser": "vLLM has no tool call parser nosuch: set `tool_call_parser`",
    "unknown_type": "this version of vLLM does not know the architecture of the model (qwen9): install a newer one",
    "wrong_quantization": "the model's weights are not packed as `quantization` says",
}


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.log")))
def test_what_it_printed_becomes_one_sentence(name: str) -> None:
    assert explain(1, (RECORDED / f"{name}.log").read_text().splitlines()) == SENTENCES[name]


# What may be otherwise at the next start; every other sentence would only come again.
PASSING = {"not_on_this_machine", "port_taken"}


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.log")))
def test_what_the_configuration_or_a_file_has_wrong_is_not_tried_again_like_a_crash(name: str) -> None:
    sentence = explain(1, (RECORDED / f"{name}.log").read_text().splitlines())

    assert isinstance(sentence, Settled) is (name not in PASSING)


@pytest.mark.parametrize(
    "line",
    ["torch.OutOfMemoryError: CUDA out of memory.", "No space left on device", "Fatal Python error: Aborted", "bye"],
)
def test_what_may_pass_is_tried_again(line: str) -> None:
    assert not isinstance(explain(1, [line]), Settled)


@pytest.mark.parametrize("code", [-9, -15, -11, 137])
def test_what_was_ended_from_outside_is_tried_again(code: int) -> None:
    assert not isinstance(explain(code, ["bye"]), Settled)


def test_what_has_served_is_started_again_whatever_it_printed() -> None:
    assert not isinstance(explain(1, ["vllm: error: unrecognized arguments: --no-such-flag"], has_served=True), Settled)


PUBLISHED = {
    "ValueError: Available memory on node 0 (9.51/15.62 GiB) on startup is less than desired CPU memory utilization "
    "(0.9, 14.06 GiB). On the CPU backend, the `--gpu-memory-utilization` flag": "it wants 14.06 GiB of this machine's "
    "memory (`gpu_memory_utilization: 0.9`, which counts on a CPU too) and 9.51 of 15.62 GiB are free: end other "
    "programs, lower `gpu_memory_utilization`, or set `kv_cache_memory_bytes`",
    "ValueError: Available memory on node 0 is less than desired": "the memory of this machine is not enough for the "
    "share it wants: lower `gpu_memory_utilization`",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 5 has a total capacity of 79.25 GiB": (
        "the GPU's memory is not enough"
    ),
    "ValueError: Free memory on device cuda:0 (19.77/22.05 GiB) on startup is less than desired GPU memory utilization "
    "(0.9, 19.84 GiB). Decrease GPU memory utilization": "other programs hold the GPU's memory (19.77 of 22.05 GiB are "
    "free): end them, or lower `gpu_memory_utilization` from 0.9",
    "ValueError: Free memory on device (0.49/79.32 GiB) on startup is less than desired GPU memory utilization (0.6, "
    "47.59 GiB).": "other programs hold the GPU's memory (0.49 of 79.32 GiB are free)",
    "ValueError: No available memory for the cache blocks. Try": "no memory is left",
    "OSError: You are trying to access a gated repo.\nMake sure to have access to it": "the model is gated: ask for "
    "access on its page on the hub and set `env: {HF_TOKEN: …}`",
    "OSError: org/none is not a local folder and is not a valid model identifier": "the hub has no such model",
    "huggingface_hub.errors.RevisionNotFoundError: 404 Client Error.": "the hub has the model, but not this `revision`",
    "RuntimeError: The NVIDIA driver on your system is too old (found version 11060).": "the GPU's driver is too old",
    "RuntimeError: No CUDA GPUs are available": "vLLM finds no GPU",
    "RuntimeError: Failed to infer device type, please set": "vLLM finds no GPU",
    "ValueError: World size (4) is larger than the number of available GPUs (2) in this node.": "it wants 4 GPUs and "
    "has 2",
    "Value error, Total number of attention heads (14) must be divisible by tensor parallel size (4).": "the "
    "model's 14 attention heads cannot be shared by 4 GPUs",
    "Please pass the argument `trust_remote_code=True` to allow custom code to be run.": "the model comes with code",
    "ValueError: The supplied chat template string (/t.jinja) appears path-like, but doesn't exist!": "the file "
    "named by `chat_template` is not there",
    "OSError: [Errno 28] No space left on device: '/psm_1'": "the shared memory is too small",
    "OSError: [Errno 28] No space left on device": "a disk is full",
    "RuntimeError: [enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory": "the memory of "
    "this machine is not enough",
    "cannot start /opt/vllm: No such file or directory": "its command is not there",
    "Error while finding module specification (ModuleNotFoundError: No module named 'vllm')": "vLLM is not "
    "installed where `command` looks",
    "ModuleNotFoundError: No module named 'bitsandbytes'": "the Python package bitsandbytes is missing",
    "ImportError: cannot import name 'x' from 'torch' (unknown location)": (
        "the packages in vLLM's environment do not match: torch has no x"
    ),
    "vllm: error: argument --dtype: invalid choice: 'x'": "vLLM does not accept the value of --dtype",
    "torch._inductor.exc.InductorError: InvalidCxxCompiler: No working C++ compiler found in "
    "torch._inductor.config.cpp.cxx: (None, 'g++')": "it compiles code for `logprobs`, and there is no compiler",
    "RuntimeError: NCCL error: unhandled system error": "its GPUs cannot talk to each other",
    "ValueError: Loading lora law failed: No adapter found for <path>": "the adapter law cannot be loaded",
    "Fatal Python error: Illegal instruction\n": "a kernel of this build of vLLM does not run on this processor",
    "Fatal Python error: Segmentation fault\n": "one of its processes crashed (Segmentation fault)",
    "Worker proc VllmWorker-0 died unexpectedly (exit code: None)": "one of its worker processes died",
    "1 validation error for ModelConfig\n  Value error, it is odd [type=value_error": (
        "vLLM refuses its settings: it is odd"
    ),
    "": "it exited with code 1",
}


@pytest.mark.parametrize("printed", PUBLISHED)
def test_a_published_failure_has_its_sentence(printed: str) -> None:
    assert explain(1, printed.splitlines()).startswith(PUBLISHED[printed])


def test_a_kill_from_outside_is_named() -> None:
    assert explain(-9, []).startswith("it was killed from outside")
    assert explain(-11, []) == "it was ended by signal 11"
