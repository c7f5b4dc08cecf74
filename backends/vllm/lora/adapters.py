"""vLLM's adapters: checked as files, loaded, held against the base, and unloaded; with its refusals in one sentence."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backends.endpoint import Endpoint
from backends.engine import Proof
from backends.errors import EngineFailed, NoEffect, NotFinite
from backends.http.probe_client import ProbeClient, Reply
from backends.model_files.adapter_file import flaw, read_base
from backends.vllm.config import VllmConfig
from backends.vllm.lora import probe
from backends.vllm.lora.probe import Comparison, Figures

ADAPTER_S: Final = 120.0
LIST_S: Final = 10.0
_LONGEST: Final = 1500  # of its own sentence
_WRAPPED: Final = re.compile(
    r"(?:Call to \w+ method failed: )?Worker failed with error '(.*)', please check", re.DOTALL
)
_UNEXPECTED: Final = re.compile(
    r"While loading .*?expected target modules in \{(.*?)\} but received \[(.*?)\]", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """What of an engine's adapters is on this machine. `folder`: finds one by its configured path, None where there is
    none; `base`: the model's folder; `max_rank`: the highest rank that the running engine takes. The first two block.
    """

    folder: Callable[[str], str | None]
    base: Callable[[], Path | None]
    max_rank: Callable[[], int | None]

    def checked(self, path: str) -> tuple[str | None, str | None]:
        """The adapter's folder, and what its files tell against it. Blocks."""
        folder, base = self.folder(path), self.base()
        if folder is None:
            # vLLM would go on trying to load it with every adapter after it.
            return None, flaw(Path(path).expanduser()) or "has no adapter_config.json in its folder"
        known = read_base(base) if base is not None else None
        return folder, flaw(Path(folder), known, max_rank=self.max_rank())


class LoraAdapters:
    """Fulfils Adapters through vLLM's routes for LoRA."""

    def __init__(self, name: str, client: ProbeClient, files: AdapterFiles, config: VllmConfig) -> None:
        self._name = name
        self._client = client
        self._files = files
        self._task = config.task
        self._copies = config.data_parallel_size
        self._loads: dict[tuple[int, str, str], int] = {}  # by start, name and folder

    async def load(self, endpoint: Endpoint, name: str, path: str) -> None:
        """Serve the adapter at this path under that name, in place of what had the name before. EngineFailed when there
        is no adapter, its files are not fit for the base, or vLLM does not load it.
        """
        folder, wrong = await asyncio.to_thread(self._files.checked, path)
        if folder is None or wrong is not None:
            raise EngineFailed(self._name, f"the adapter {name!r} {wrong}")
        body = {
            "lora_name": name,
            "lora_path": self._spelled(endpoint.generation, name, folder),
            "load_inplace": name in await self.listed(endpoint),
        }
        reply = await self._ask(endpoint, "load_lora_adapter", body)
        if reply.status != 200:
            raise EngineFailed(self._name, f"the adapter {name!r} was not loaded: {refusal(reply, folder)}")

    def _spelled(self, generation: int, name: str, folder: str) -> str:
        """The folder, written in another way each time: vLLM tells what it has cached of an adapter by its name and its
        path, and would go on with what an earlier adapter at the same path has computed.
        """
        self._loads = {key: count for key, count in self._loads.items() if key[0] == generation}
        count = self._loads.get((generation, name, folder), 0)
        self._loads[generation, name, folder] = count + 1
        return folder + "/." * count

    async def unload(self, endpoint: Endpoint, name: str) -> None:
        """Forget it; does nothing when it is not loaded. EngineFailed when vLLM does not unload it."""
        reply = await self._ask(endpoint, "unload_lora_adapter", {"lora_name": name})
        if reply.status not in (200, 404):
            raise EngineFailed(self._name, f"the adapter {name!r} was not unloaded: {error_text(reply)}")

    async def listed(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The names of the adapters that are loaded. EngineFailed when vLLM does not list its models."""
        reply = await self._client.ask(f"{endpoint.address}/models", endpoint.headers, timeout_s=LIST_S)
        try:
            return tuple(str(each["id"]) for each in reply.json()["data"] if each.get("parent"))
        except (KeyError, TypeError, AttributeError) as exc:
            raise EngineFailed(self._name, f"it does not list its models: {error_text(reply)}") from exc

    async def prove(self, endpoint: Endpoint, name: str) -> Proof:
        """Hold what it answers against what the base answers, at each copy of the model. NotFinite when one of them
        answers no numbers, EngineFailed when the adapter answers as the base does.
        """
        proofs = [await self._prove(endpoint, name, headers) for headers in self._each_copy(endpoint)]
        return min(proofs, key=lambda proof: proof.effect)

    async def _prove(self, endpoint: Endpoint, name: str, headers: Mapping[str, str]) -> Proof:
        seen = Comparison([], [])
        for _ in range(probe.ROUNDS):
            for model, answers in ((self._name, seen.base), (self._name, seen.base), (name, seen.adapter)):
                answer = await self._answer(endpoint, headers, model)
                if isinstance(answer, str):
                    return Proof(why_not=answer)
                answers.append(answer)
            proof = seen.proof()
            if probe.is_clear(proof):
                break
        if probe.is_nothing(proof):
            raise NoEffect(
                self._name,
                f"the adapter {name!r} is loaded, but it does nothing: it answers as the base does (their "
                f"log-probabilities differ by {proof.effect:.1g}, the base's own by {proof.noise:.1g})",
            )
        return proof

    async def _answer(self, endpoint: Endpoint, headers: Mapping[str, str], model: str) -> Figures | str:
        """What this model answers to the probe; a text: why it cannot be asked."""
        route, body = probe.question(self._task, model)
        reply = await self._client.ask(_root(endpoint, route), headers, timeout_s=ADAPTER_S, body=body)
        adapter = None if model == self._name else model
        whose = "the base" if adapter is None else f"the adapter {adapter!r}"
        answer = probe.figures(self._task, reply.json()) if reply.status == 200 else None
        if probe.says_not_finite(reply.body) or (answer is not None and not probe.are_finite(answer)):
            raise NotFinite(self._name, f"{whose} answers no numbers (NaN or infinity)", adapter)
        if reply.status >= 500:
            raise EngineFailed(self._name, f"{whose} fails at its first request: {error_text(reply)}")
        if answer is None:
            return f"it gives no log-probabilities to compare: {error_text(reply)}"
        return answer

    def _each_copy(self, endpoint: Endpoint) -> list[Mapping[str, str]]:
        if self._copies == 1:
            return [endpoint.headers]
        return [{**endpoint.headers, "x-data-parallel-rank": str(rank)} for rank in range(self._copies)]

    async def _ask(self, endpoint: Endpoint, route: str, body: object) -> Reply:
        url = f"{endpoint.address}/{route}"
        return await self._client.ask(url, endpoint.headers, timeout_s=ADAPTER_S, body=body)


def refusal(reply: Reply, folder: str) -> str:
    """Why it did not take an adapter, whole and in its own words, without what they are wrapped in and without the
    folder's path; what it does not adapt is named before what it does.
    """
    text = _message(reply)
    if text is None:
        return f"status {reply.status}"
    wrapped = _WRAPPED.search(text)
    text = wrapped[1] if wrapped is not None else text
    unexpected = _UNEXPECTED.search(text)
    if unexpected is not None:
        taken = ", ".join(sorted(word.strip(" '\"") for word in unexpected[1].split(",")))
        text = f"it has weights for {unexpected[2]}, and of this model the engine adapts {taken} only"
    text = " ".join(text.replace(folder, Path(folder).name).split())
    return f"{text[:_LONGEST]} (status {reply.status})"


def error_text(reply: Reply) -> str:
    """Its own error message, shortened, and the status."""
    message = _message(reply)
    status = f"status {reply.status}"
    return f"{' '.join(message.split())[:200]} ({status})" if message else status


def _message(reply: Reply) -> str | None:
    body: Any = reply.json()
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return str(message) if message else None


def _root(endpoint: Endpoint, path: str) -> str:
    return f"{endpoint.address.removesuffix('/v1')}{path}"
