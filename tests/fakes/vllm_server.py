"""vLLM's server as the gateway starts it: the fake engine, with adapters, sleep and metrics.

    python -m tests.fakes.vllm_server --model=M --served-model-name=NAME --port=P …   (VLLM_API_KEY is its key)

Its `/metrics` is a page that a real vLLM wrote under load (tests/recorded/vllm/metrics.prom): counters and histograms
have grown as far as the requests that it was sent, gauges are as recorded while it has any and 0 else. An adapter
answers the gateway's proof otherwise than its base. What it does not do: compute, share its memory, refuse an adapter.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Sequence

from tests import ROOT
from tests.fakes import wire
from tests.fakes.engine import FakeEngine
from tests.fakes.peer import Peer, Record

RECORDING = ROOT / "tests/recorded/vllm/metrics.prom"
RECORDED_REQUESTS = 30  # that the recorded server had begun to answer
RECORDED_NAME = "base"
_SAMPLE = re.compile(r"^([\w:]+)(\{.*\})? (\S+)$")
_GROWING = ("counter", "histogram", "summary")
_WORK = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")


def page(recorded: str, name: str, *, requests: int, is_busy: bool) -> str:
    """The recorded page as it would be after so many requests to a server whose model is called `name`."""
    lines, kind = [], ""
    for line in recorded.replace(f'model_name="{RECORDED_NAME}"', f'model_name="{name}"').splitlines():
        if line.startswith("# TYPE"):
            kind = line.rpartition(" ")[2]
        sample = _SAMPLE.match(line)
        if sample is not None and kind in _GROWING:
            value = float(sample[3]) * requests / RECORDED_REQUESTS
            line = f"{sample[1]}{sample[2] or ''} {value:g}"
        elif sample is not None and sample[1].startswith(_WORK) and not is_busy:
            line = f"{sample[1]}{sample[2] or ''} 0.0"
        lines.append(line)
    return "\n".join(lines) + "\n"


class FakeVllm(FakeEngine):
    """One server. `models` are its own name, and the adapters that were loaded."""

    def __init__(self, name: str, key: str | None = None, port: int = 0) -> None:
        super().__init__((name,), key, port)
        self.name = name
        self._recorded = RECORDING.read_text()

    async def _answer(self, peer: Peer, record: Record) -> None:
        path = record.path.partition("?")[0]
        is_allowed = not self.key or record.header("authorization") == f"Bearer {self.key}"
        match record.method, path:
            case "GET", "/metrics":
                text = page(
                    self._recorded,
                    self.name,
                    requests=len(self.posts),
                    is_busy=any(not each.ended.is_set() for each in self.posts),
                )
                await peer.send(wire.whole(200, text.encode(), "text/plain; version=0.0.4; charset=utf-8"))
            case "GET", "/version":
                await peer.send_json({"version": "0.32.0"})
            case "GET", "/v1/models" if is_allowed:
                await peer.send_json(self._listed())
            case "POST", "/v1/load_lora_adapter" if is_allowed:
                name = _fields(record)["lora_name"]
                self.models = (*(each for each in self.models if each != name), name)
                await peer.send(wire.whole(200, b"Success: LoRA adapter added successfully.", "text/plain"))
            case "POST", "/v1/unload_lora_adapter" if is_allowed:
                name = _fields(record)["lora_name"]
                self.models = tuple(each for each in self.models if each != name)
                await peer.send(wire.whole(200, b"Success: LoRA adapter removed successfully.", "text/plain"))
            case "POST", "/sleep" | "/wake_up" if is_allowed:
                await peer.send(wire.whole(200, b"", "text/plain"))
            case "POST", "/v1/completions" if is_allowed and "logprobs" in _fields(record):
                await peer.send_json(self._probabilities(_fields(record)))
            case _:
                await super()._answer(peer, record)

    def _listed(self) -> wire.Json:
        """Its models: adapters name their base as their parent."""
        listed = wire.models(self.models)
        for row in listed["data"]:
            row["parent"] = None if row["id"] == self.name else self.name
        return listed

    def _probabilities(self, body: wire.Json) -> wire.Json:
        """The next token of each text, less likely with an adapter than without."""
        value = -1.0 if body["model"] == self.name else -1.5
        prompts = body["prompt"] if isinstance(body["prompt"][0], str) else [body["prompt"]]
        choices = [
            {
                "index": at,
                "text": " a",
                "finish_reason": "length",
                "logprobs": {
                    "text_offset": [0],
                    "token_logprobs": [value],
                    "tokens": [" a"],
                    "top_logprobs": [{" a": value}],
                },
            }
            for at in range(len(prompts))
        ]
        used = wire.usage(wire.Ask("completions", body["model"]), len(prompts))
        return {"id": "cmpl-1", "object": "text_completion", "model": body["model"], "choices": choices, "usage": used}


def _fields(record: Record) -> wire.Json:
    fields: wire.Json = json.loads(record.body)
    return fields


async def _run(words: Sequence[str]) -> None:
    given = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--") and "=" in word)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with FakeVllm(given["served-model-name"], os.environ.get("VLLM_API_KEY"), int(given["port"])) as engine:
        engine.script(default=os.environ.get("FAKE_VLLM_SCENARIO", "ok"))
        print(f"serving {engine.url}", flush=True)
        await stopped.wait()


def main(words: Sequence[str]) -> int:
    """Serve until it is told to end."""
    asyncio.run(_run(words))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
