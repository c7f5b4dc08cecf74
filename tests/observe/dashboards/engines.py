"""Engines: their states and starts, what vLLM, llama.cpp and Ollama say of themselves, and the GPUs."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.observe.dashboards import panels
from tests.observe.dashboards.panels import Column, Query, curves, rows, states
from tests.observe.dashboards.series import (
    BACKEND,
    BACKENDS,
    ENGINES,
    GATEWAYS,
    MODEL,
    REQUESTS,
    by,
    mean,
    quantile,
    rate,
    ratio,
    start_seconds,
)

EACH: Final = f"{{{{{BACKEND}}}}}"
ENGINE: Final = "{{backend}}"
DEVICE: Final = "{{device}} ({{instance}})"
STATES: Final = {
    1: ("stopped", "text"),
    2: ("starting", "blue"),
    3: ("ready", "green"),
    4: ("sleeping", "purple"),
    5: ("stopping", "yellow"),
    6: ("failed", "red"),
}


def engines() -> Dashboard:
    """The dashboard."""
    return panels.page(
        "engines",
        "Engines",
        "What the engines do: states and starts, queues, KV cache, prefix cache, adapters, GPUs",
        ("instance", "model", "backend"),
        {
            "Engines": _lives(),
            "Adapters and certificates": _adapters(),
            "vLLM": _vllm(),
            "llama.cpp": _llama_cpp(),
            "Ollama": _ollama(),
            "GPUs": _gpus(),
            "Their own metrics": _scrapes(),
        },
    )


def _state() -> str:
    """The number of the state that each engine is in."""
    numbered = (
        f'(modelport_backend_state{{{BACKENDS},state="{name}"}} == 1) * {number}'
        for number, (name, _) in STATES.items()
    )
    return by(f"instance, {BACKEND}", " or ".join(numbered), "max")


def _lives() -> list[panels.Panels]:
    return [
        states(
            "States",
            "What each engine is doing. A sleeping one has given its GPU memory back and wakes within seconds",
            Query(_state(), f"{EACH} ({{{{instance}}}})"),
            STATES,
        ),
        curves(
            "Attempts by outcome",
            "What came of requests that were sent to engines, in each second: ok, or the error code",
            panels.PER_SECOND,
            Query(by(f"{BACKEND}, outcome", rate("modelport_attempts_total", BACKENDS)), f"{EACH}: {{{{outcome}}}}"),
            is_stacked=True,
        ),
        curves(
            "Waiting",
            "Requests that wait in the gateway for a place at the engine, or for its start",
            panels.COUNT,
            Query(by(BACKEND, f"modelport_backend_waiting{{{BACKENDS}}}"), EACH),
        ),
        curves(
            "Starts again",
            "Starts after an engine had ended unasked, in the last 15 minutes. More than 3: it keeps crashing",
            panels.COUNT,
            Query(by(BACKEND, f"increase(modelport_backend_restarts_total{{{BACKENDS}}}[15m])"), EACH),
            levels={3: "red"},
        ),
        curves(
            "Swaps",
            "How often an engine made room for another one in the last 15 minutes. Many: the machine is too small for "
            "the models that are used at the same time",
            panels.COUNT,
            Query(by(BACKEND, f"increase(modelport_backend_swaps_total{{{BACKENDS}}}[15m])"), EACH),
            levels={30: "red"},
            width=12,
        ),
        curves(
            "Seconds to start and to wake",
            "How long starts (how: start) and ends of a sleep (how: wake) took, the mean since the gateway's start",
            panels.SECONDS,
            Query(start_seconds(), f"{EACH}: {{{{how}}}}"),
            width=12,
        ),
    ]


def _adapters() -> list[panels.Panels]:
    certificate = f'modelport_certificate{{{GATEWAYS},{MODEL}=~"$model",{BACKEND}=~"$backend"}}'
    return [
        curves(
            "Loads of adapters by proof",
            "Loads since the gateway's start: proved; unclear (served, could not be compared); off (not asked for); "
            "failed (not served)",
            panels.COUNT,
            Query(
                by(f"{BACKEND}, verdict", f"modelport_adapter_loads_total{{{BACKENDS}}}"), f"{EACH}: {{{{verdict}}}}"
            ),
        ),
        curves(
            "Adapters missing",
            "Adapters that an engine is to have and does not serve",
            panels.COUNT,
            Query(by(BACKEND, f"modelport_adapters_missing{{{BACKENDS}}}"), EACH),
            levels={1: "red"},
        ),
        rows(
            "Certificates",
            "What was found out about each served model, held against what it was trained on (docs/parity.md)",
            {MODEL: "model", BACKEND: "backend", "verdict": "verdict"},
            Column("holds now", by(f"{MODEL}, {BACKEND}, verdict", f"{certificate} == 1", "max"), "bool_yes_no"),
            width=8,
        ),
    ]


def _vllm() -> list[panels.Panels]:
    def engine(series: str) -> str:
        return by("backend", f"vllm:{series}{{{ENGINES}}}")

    def engine_rate(series: str) -> str:
        return by("backend", rate(f"vllm:{series}", ENGINES))

    return [
        curves(
            "Running and waiting",
            "Requests in vLLM's batch, and those that it has taken and not begun",
            panels.COUNT,
            Query(engine("num_requests_running"), f"{ENGINE}: running"),
            Query(engine("num_requests_waiting"), f"{ENGINE}: waiting"),
        ),
        curves(
            "KV cache in use",
            "The share of the KV cache that running requests take. At 100 % requests wait or are set back",
            panels.RATIO,
            Query(by("backend", f"vllm:kv_cache_usage_perc{{{ENGINES}}}", "max"), ENGINE),
            levels={0.9: "red"},
            highest=1,
        ),
        curves(
            "Prefix cache hits",
            "The share of prompt tokens that were in the KV cache already",
            panels.RATIO,
            Query(ratio(engine_rate("prefix_cache_hits_total"), engine_rate("prefix_cache_queries_total")), ENGINE),
            highest=1,
        ),
        curves(
            "Tokens",
            "Tokens in each second: read (prompts) and written",
            panels.TOKENS_PER_SECOND,
            Query(engine_rate("prompt_tokens_total"), f"{ENGINE}: prompts"),
            Query(engine_rate("generation_tokens_total"), f"{ENGINE}: written"),
        ),
        curves(
            "Where the time goes",
            "The mean time of a request in vLLM's queue, with its prompt, and writing",
            panels.SECONDS,
            *(
                Query(mean(f"vllm:request_{phase}_time_seconds", ENGINES, "backend"), f"{ENGINE}: {name}")
                for phase, name in (("queue", "queue"), ("prefill", "prompt"), ("decode", "writing"))
            ),
        ),
        curves(
            "Set back",
            "Requests in each second that lost their place in the KV cache and are computed again: it is too small",
            panels.COUNT_PER_SECOND,
            Query(engine_rate("num_preemptions_total"), ENGINE),
        ),
        curves(
            "Tokens of one step",
            "The mean size of vLLM's batch: prompt tokens and one for each request that writes",
            panels.COUNT,
            Query(mean("vllm:iteration_tokens_total", ENGINES, "backend"), ENGINE),
            width=12,
        ),
        curves(
            "Between tokens, 95th percentile",
            "As vLLM measures it, without the way to the client",
            panels.SECONDS,
            Query(quantile(0.95, "vllm:inter_token_latency_seconds", ENGINES, "backend"), ENGINE),
            width=12,
        ),
    ]


def _llama_cpp() -> list[panels.Panels]:
    def engine_rate(series: str) -> str:
        return by("backend", rate(f"llamacpp:{series}", ENGINES))

    cached, read = engine_rate("prompt_tokens_cached_total"), engine_rate("prompt_tokens_total")
    return [
        curves(
            "Running and waiting",
            "Requests in the engine's slots, and those that wait for one inside the engine",
            panels.COUNT,
            Query(by("backend", f"llamacpp:requests_processing{{{ENGINES}}}"), f"{ENGINE}: running"),
            Query(by("backend", f"llamacpp:requests_deferred{{{ENGINES}}}"), f"{ENGINE}: waiting"),
        ),
        curves(
            "Tokens",
            "Tokens in each second: read (prompts) and written",
            panels.TOKENS_PER_SECOND,
            Query(read, f"{ENGINE}: prompts"),
            Query(engine_rate("tokens_predicted_total"), f"{ENGINE}: written"),
        ),
        curves(
            "Prompts from the cache",
            "The share of prompt tokens that were in the KV cache already",
            panels.RATIO,
            Query(f"{cached} / ({cached} + {read} > 0)", ENGINE),
            highest=1,
        ),
        curves(
            "Speed of one answer",
            "Tokens of a second of work: with prompts and writing. None where it hardly worked",
            panels.TOKENS_PER_SECOND,
            Query(_speed(read, engine_rate("prompt_seconds_total")), f"{ENGINE}: prompts"),
            Query(
                _speed(engine_rate("tokens_predicted_total"), engine_rate("tokens_predicted_seconds_total")),
                f"{ENGINE}: writing",
            ),
            width=12,
        ),
        curves(
            "Slots in use at a step",
            "How many requests the engine writes at the same time, the mean since its start",
            panels.COUNT,
            Query(by("backend", f"llamacpp:n_busy_slots_per_decode{{{ENGINES}}}"), ENGINE),
            width=12,
        ),
    ]


def _speed(tokens: str, seconds: str) -> str:
    """Tokens of a second of work. The first token of an answer takes no time of writing, so that answers of one token
    (our own first request to an engine) would come out as a million a second.
    """
    return f"{tokens} / ({seconds} > 0.001)"


def _ollama() -> list[panels.Panels]:
    return [
        curves(
            "Where the time goes",
            "What Ollama says that it spent on a request, the mean by phase: load (into memory), prompt, generate",
            panels.SECONDS,
            Query(
                mean("modelport_engine_phase_seconds", REQUESTS, f"{BACKEND}, phase"),
                f"{EACH}: {{{{phase}}}}",
            ),
            width=12,
        ),
        curves(
            "Loads, 95th percentile",
            "How long a model took to be in memory, by model. Above a second: the daemon unloads what is used",
            panels.SECONDS,
            Query(
                quantile(0.95, "modelport_engine_phase_seconds", f'{REQUESTS},phase="load"', MODEL), f"{{{{{MODEL}}}}}"
            ),
            levels={1: "yellow"},
            width=12,
        ),
    ]


def _gpus() -> list[panels.Panels]:
    used = by("instance, device", f"modelport_gpu_memory_used_bytes{{{GATEWAYS}}}")
    total = by("instance, device", f"modelport_gpu_memory_total_bytes{{{GATEWAYS}}}")
    return [
        curves(
            "GPU memory in use",
            "The share of each GPU's memory that is taken, by whomever. vLLM takes what it may have at its start",
            panels.RATIO,
            Query(ratio(used, total), DEVICE),
            levels={0.97: "red"},
            highest=1,
            width=6,
        ),
        curves("GPU memory", "Bytes in use, and what there is", panels.BYTES, Query(used, f"{DEVICE}: used"),
               Query(total, f"{DEVICE}: there is"), width=6),
        curves(
            "GPU utilisation",
            "The share of the time in which something was computed, as the driver says. At 100 % more may still fit",
            panels.RATIO,
            Query(by("instance, device", f"modelport_gpu_utilization_ratio{{{GATEWAYS}}}"), DEVICE),
            highest=1,
            width=6,
        ),
        curves(
            "GPUs in quarantine",
            "1 while nothing is started on it, because its memory did not come back after an engine had ended",
            panels.COUNT,
            Query(by("instance, device", f"modelport_gpu_quarantined{{{GATEWAYS}}}"), DEVICE),
            levels={1: "red"},
            width=6,
        ),
    ]  # fmt: skip


def _scrapes() -> list[panels.Panels]:
    return [
        curves(
            "Engines that told their metrics",
            "1 where the gateway got the engine's own metrics at the last scrape, else 0; the panels above need them",
            panels.COUNT,
            Query(by("backend", f"modelport_engine_scrape_up{{{ENGINES}}}", "min"), ENGINE),
            highest=1,
            width=12,
        ),
        curves(
            "How long they took",
            "Seconds in which an engine gave its metrics",
            panels.SECONDS,
            Query(by("backend", f"modelport_engine_scrape_seconds{{{ENGINES}}}", "max"), ENGINE),
            levels={1: "yellow"},
            width=12,
        ),
    ]
