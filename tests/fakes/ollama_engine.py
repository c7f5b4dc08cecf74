"""A real model behind the fake daemon: a GGUF file that came by blobs and `/api/create` runs on the embedded engine."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Self

import httpx

from backends.llama_cpp.child import KEY_VARIABLE
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.engine import argv
from tests.fakes.ollama_voice import Ask, Generated
from tests.rigs.transcripts import Json

PATIENCE_S = 90.0
_SAME = ("temperature", "top_p", "top_k", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty")


class Engines:
    """One embedded engine for each file, started when it is first needed."""

    def __init__(self) -> None:
        self._running: dict[Path, tuple[asyncio.subprocess.Process, str]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for process, _url in self._running.values():
            process.kill()
            await process.wait()
        self._running.clear()

    async def say(self, ask: Ask) -> Generated:
        """What the model in the file generates."""
        assert ask.model.file is not None
        url = await self._url(ask.model.file)
        body: Json = {name: ask.options[name] for name in _SAME if name in ask.options}
        body["max_tokens"] = ask.limit
        if body.get("seed") == -1:
            del body["seed"]
        if ask.prompt is None:
            body["messages"] = ask.messages
            body |= {"tools": ask.tools} if ask.tools else {}
        else:
            body["prompt"] = ask.prompt
        path = "chat/completions" if ask.prompt is None else "completions"
        async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
            reply = await client.post(f"{url}/v1/{path}", json=body, headers={"authorization": "Bearer fake"})
        completion = reply.raise_for_status().json()
        choice, usage = completion["choices"][0], completion["usage"]
        text = choice["message"]["content"] if ask.prompt is None else choice["text"]
        words = text.split(" ")
        pieces: list[Json] = [{"content": word if not number else f" {word}"} for number, word in enumerate(words)]
        reason = "length" if choice["finish_reason"] == "length" else "stop"
        return Generated(usage["prompt_tokens"], pieces, usage["completion_tokens"], reason=reason)

    async def _url(self, file: Path) -> str:
        if file not in self._running:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            config = LlamaCppConfig(kind="llama_cpp", model=str(file), context_length=2048, slots=1)
            env = {**os.environ, "GOMP_SPINCOUNT": "1000", KEY_VARIABLE: "fake"}
            line = argv(config, "fake", file, port, 2)
            process = await asyncio.create_subprocess_exec(
                *line, env=env, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            self._running[file] = process, f"http://127.0.0.1:{port}"
            await _healthy(f"http://127.0.0.1:{port}/health")
        return self._running[file][1]


async def _healthy(url: str) -> None:
    async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient(trust_env=False) as client:
        while True:
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)  # another process has no event for us
