"""A registration with a converter that needs no tool environment, and a process of it that is killed where it is told.

As a process:   python -m tests.rigs.registration FOLDER DAEMON_URL KILL_AT    (0: nobody kills it)
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from app.cli.register_targets import EnginesHere, Source, write_entries
from app.cli.registered_entries import EngineSettings
from app.config import yaml_edit
from app.conversion.model_folder import ModelFolder
from app.registration import config_step, journal, registrar
from app.registration.daemon import OllamaDaemon
from app.registration.journal import Content, folder_of, opened
from app.registration.order import Order, ServingOrder, sampling_of
from app.registration.registrar import Registrar, ServedAs, WantedFile, refuse_taken

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


class Quiet:
    """Fulfils Teller; keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def step(self, text: str) -> None:
        """Nobody looks."""

    def bytes(self, done: int, total: int) -> None:
        """Nobody looks."""


class Copying:
    """Fulfils Conversions: a GGUF file is the letters GGUF and what it was made from."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def gguf(self, wanted: WantedFile) -> Mapping[str, Any]:
        self.made.append(wanted.outtype)
        out = wanted.out
        fresh = out.with_name(f".{out.name}.part")
        weights = (wanted.source / "model.safetensors").read_bytes()
        fresh.write_bytes(b"GGUF" + weights + (wanted.chat_template or "").encode())
        fresh.replace(out)
        return {"told": f"{out.stat().st_size} bytes"}

    def merged(self, adapter: Path, base: str | None, out: Path) -> Mapping[str, Any]:
        self.made.append("merged")
        fresh = out.with_name(f".{out.name}.part")
        fresh.mkdir()
        (fresh / "model.safetensors").write_bytes(b"merged")
        fresh.replace(out)
        return {}


def tuned(folder: Path) -> Path:
    """A folder with what a registration reads of a tuned model."""
    model = folder / "tuned"
    if not model.exists():
        model.mkdir()
        (model / "config.json").write_text(json.dumps({"max_position_embeddings": 4096}))
        (model / "model.safetensors").write_bytes(b"weights")
    return model


def order_for(folder: Path, url: str, **changes: Any) -> Order:
    """All three engines, in a folder with a configuration file that serves something already."""
    config = folder / "modelport.yaml"
    if not config.exists():
        config.write_text(
            "# mine\nbackends:\n  other: {kind: remote, url: 'http://127.0.0.1:9/v1'}\nmodels:\n  a: {backend: other}\n"
        )
    servings = (
        ServingOrder("law", "vllm", "folder"),
        ServingOrder("law-ollama", "ollama", "daemon", url),
        ServingOrder("law-embedded", "embedded", "file"),
    )
    values: dict[str, Any] = {
        "name": "law",
        "source": tuned(folder),
        "config": config,
        "servings": servings,
        "outtype": "q8_0",
    }
    return Order(**(values | changes))


def trained(**changes: Any) -> ServedAs:
    """A model whose template is not the tokenizer's, and whose answers end at a token of their own."""
    values: dict[str, Any] = {
        "chat_template": TEMPLATE,
        "default_system": "Be kind.",
        "sampling": sampling_of({"temperature": 0.6}, ("<|end|>",)),
        "generation": {"eos_token_id": [7]},
        "context_length": 4096,
    }
    return ServedAs(**(values | changes))


def register(order: Order, state: Path, model: ServedAs, making: Copying, tell: Quiet) -> None:
    """One run, as `modelport register` does it but for the reference, the reload and the certificate."""
    url = next((each.url for each in order.servings if each.url), None)
    text = yaml_edit.read(order.config)
    tree = config_step.tree_of(text)
    machine = EnginesHere(text, tree, (), EngineSettings(command="/opt/vllm"), url or "")
    whole = ModelFolder(order.source, False, {}, (), {}, (), {}, {}, None)

    def fresh() -> Content:
        return Content(name=order.name, source=str(order.source), config=str(order.config))

    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(OllamaDaemon(url)) if url is not None else None
        notes = stack.enter_context(opened(folder_of(state, order.name), fresh))
        refuse_taken(order, notes, tree, daemon)
        run = Registrar(order, notes, model, making, tell, daemon=daemon)
        run.read()
        artifacts = {each: run.artifact(each) for each in order.servings}
        write_entries(order, artifacts, model, machine, Source(whole), notes, run)
        run.retire()
        run.complete()


def _killed(function: Callable[..., Any], at: int, counter: list[int]) -> Callable[..., Any]:
    """The function, before and after which this process is killed when its turn has come."""

    def counted(*args: Any, **named: Any) -> Any:
        for is_before in (True, False):
            counter[0] += 1
            if counter[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            if is_before:
                result = function(*args, **named)
        return result

    return counted


def main() -> int:
    """Register; prints how many places there were to be killed at."""
    folder, url, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    counter = [0]
    for owner, name in (
        (journal.Journal, "write"),
        (registrar, "write_whole"),
        (Copying, "gguf"),
        (OllamaDaemon, "push"),
        (OllamaDaemon, "create"),
        (yaml_edit, "write"),
        (journal.Journal, "sweep"),
    ):
        setattr(owner, name, _killed(getattr(owner, name), at, counter))
    register(order_for(folder, url), folder / "state", trained(), Copying(), Quiet())
    sys.stdout.write(msgspec.json.encode(counter[0]).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
