"""What is said once at the start: the defaults that decide answers, and what has no effect here. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.llamafactory.arguments import Arguments
from app.llamafactory.configuration import ServedParts, ServingMachine
from app.llamafactory.engine_choice import EngineChoice
from app.llamafactory.flags import FLAGS

_TITLES = {"vllm": "vLLM", "llama_cpp": "the embedded engine"}


def notice(
    arguments: Arguments,
    choice: EngineChoice,
    parts: ServedParts,
    machine: ServingMachine,
    tree: Mapping[str, Any],
    *,
    is_default_host: bool,
    notes: Sequence[str] = (),
) -> list[str]:
    """The lines, the first one a heading. `notes`: what came up while the parts were made ready."""
    entry = next(iter(tree["backends"].values()))
    where = f" ({arguments.source})" if arguments.source is not None else ""
    lines = [f"LLaMA-Factory's arguments{where}, served by {_TITLES[choice.kind]}:"]
    lines += [f"  {line}" for line in _answers(arguments, tree)]
    lines += [f"  {line}" for line in _engine(parts, entry)]
    lines += [f"  {line}" for line in (*choice.notes, *notes)]
    name = machine.model_name
    default = "" if machine.env.get("API_MODEL_NAME") else " (API_MODEL_NAME changes that)"
    lines.append(f"  listed as '{name}'{default}; under any other name that a client sends it answers, too")
    lines += [f"  {line}" for line in _differences(machine, entry, is_default_host=is_default_host)]
    lines += [f"  without effect here: {line}" for line in unused(arguments)]
    return lines


def _answers(arguments: Arguments, tree: Mapping[str, Any]) -> Iterator[str]:
    defaults = next(iter(tree["models"].values()))["defaults"]
    told = {name: value for name, value in defaults.items() if name not in ("min_p", "max_tokens", "stop")}
    words = ", ".join(f"{name} {value:g}" for name, value in told.items())
    most = f"at most {defaults['max_tokens']} new tokens" if "max_tokens" in defaults else "as many tokens as fit"
    yield f"{words}, {most}: for requests that do not say otherwise"
    if arguments["max_new_tokens"] <= 0 and arguments.is_given("max_length"):
        yield "--max_length: has no effect; the context bounds an answer, or --max_new_tokens"
    if not arguments["do_sample"]:
        yield "--do_sample false: temperature 0, the likeliest token each time"
    if arguments["num_beams"] != 1:
        yield f"--num_beams {arguments['num_beams']}: has no effect; answers are sampled"
    if arguments["length_penalty"] != 1:
        yield "--length_penalty: has no effect; it is for beam search"
    if arguments["skip_special_tokens"]:
        yield "special tokens are left out of answers"
    else:
        yield "--skip_special_tokens false: has no effect for all; a request may send it"


def _engine(parts: ServedParts, entry: Mapping[str, Any]) -> Iterator[str]:
    words = [f"context {entry.get('max_model_len') or entry.get('context_length')} tokens"]
    if "gpu_memory_utilization" in entry:
        words.append(f"GPU share {entry['gpu_memory_utilization']:g}")
    if "kv_cache_memory_bytes" in entry:
        words.append(f"KV cache {entry['kv_cache_memory_bytes'] / 2**20:.0f} MiB")
    words += [f"{count} GPUs" for count in (entry.get("tensor_parallel_size", 1),) if count > 1]
    words += [f"{entry['slots']} requests at a time"] if "slots" in entry else []
    words += [f"dtype {entry['dtype']}"] if "dtype" in entry else []
    yield ", ".join(words)
    if "tool_call_parser" in entry:
        yield f"calls of tools are read by vLLM's parser {entry['tool_call_parser']} (--vllm_config changes that)"
    if parts.adapter is not None:
        yield f"adapter {parts.adapter}: applied to every request"


def _differences(machine: ServingMachine, entry: Mapping[str, Any], *, is_default_host: bool) -> Iterator[str]:
    if is_default_host:
        yield (
            "only this machine can reach it, where LLaMA-Factory listens on 0.0.0.0: set API_HOST=0.0.0.0, and API_KEY "
            "(or pass --insecure-no-key)"
        )
    if machine.is_on("API_VERBOSE"):
        yield "API_VERBOSE: has no effect; what requests and answers say is never logged"
    if machine.env.get("MAX_CONCURRENT") and "slots" not in entry:
        yield "MAX_CONCURRENT: has no effect; vLLM runs many requests at the same time"
    if "," in machine.env.get("API_KEY", ""):
        yield "API_KEY: holds a comma, so it is several keys here"


def unused(arguments: Arguments) -> list[str]:
    """The flags that were given and have no meaning here, those with one reason together."""
    reasons: dict[str, list[str]] = {}
    for name in arguments.values:
        if name in FLAGS and (why := FLAGS[name].unused) is not None:
            reasons.setdefault(why, []).append(f"--{name}")
    lines = [f"{', '.join(names)}: {why}" for why, names in reasons.items()]
    if arguments.ignored:
        lines.append(f"{', '.join(arguments.ignored)}: none of LLaMA-Factory's flags (ALLOW_EXTRA_ARGS)")
    return lines
