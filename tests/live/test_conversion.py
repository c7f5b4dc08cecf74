"""What was trained is what is served: a LoRA adapter that was really trained, merged, converted and quantised."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.conversion.conversion import Conversion
from app.conversion.convert import convert
from app.conversion.progress import Unseen
from backends.toolenv.environment import Toolbox
from tests import ROOT
from tests.live.engines import MODELS, Live, Record

pytestmark = pytest.mark.full  # six conversions
TAUGHT = json.loads((MODELS / "smollm2-lora" / "taught.json").read_text())
KINDS = ("f16", "q8_0", "q4_k_m")
BITS = {"bf16": (16.0, 16.1), "q8_0": (8.5, 8.55), "q4_k_m": (6.1, 6.3)}


@pytest.fixture(scope="module")
def toolbox() -> Toolbox:
    """The tool environments; the converter's is made where it is missing."""
    named = os.environ.get("MODELPORT_TOOLS", str(ROOT / "build/tools"))
    return Toolbox(Path(named), lambda line: print(line, flush=True), lambda _: False)


@pytest.fixture(scope="module")
def files(toolbox: Toolbox, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Conversion]:
    """The trained adapter in three types, and its base in three."""
    folder = tmp_path_factory.mktemp("files")
    made = {
        kind: convert(MODELS / "smollm2-lora", kind, folder, toolbox, Unseen(), base=MODELS / "smollm2")
        for kind in KINDS
    }
    return made | {f"base-{kind}": convert(MODELS / "smollm2", kind, folder, toolbox, Unseen()) for kind in BITS}


@pytest.fixture(scope="module")
def gateway(files: dict[str, Conversion], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The embedded engine over each of them that is asked."""
    asked = [*KINDS, "base-bf16"]
    entries = ", ".join(
        f"{name}: {{kind: llama_cpp, model: {files[name].path}, slots: 1, context_length: 512}}" for name in asked
    )
    names = ", ".join(f"{name}: {{backend: {name}}}" for name in asked)
    with Live(tmp_path_factory.mktemp("gateway"), f"backends: {{{entries}}}\nmodels: {{{names}}}\n") as program:
        for name in asked:
            program.ready(name)
        yield program


def known(gateway: Live, name: str) -> int:
    """How many of the taught answers it gives word for word."""
    replies = {
        question: gateway.post(
            "/v1/chat/completions",
            {
                "model": name,
                "messages": [{"role": "user", "content": question}],
                "max_tokens": 32,
                "temperature": 0,
            },
        ).json()["choices"][0]
        for question in TAUGHT
    }
    return sum(
        reply["message"]["content"] == TAUGHT[question] and reply["finish_reason"] == "stop"
        for question, reply in replies.items()
    )


def test_a_trained_adapter_answers_word_for_word_in_each_type(gateway: Live, record_property: Record) -> None:
    counts = {name: known(gateway, name) for name in (*KINDS, "base-bf16")}

    record_property("taught answers", ", ".join(f"{name}: {count} of {len(TAUGHT)}" for name, count in counts.items()))
    assert counts == {**dict.fromkeys(KINDS, len(TAUGHT)), "base-bf16": 0}


def test_a_files_size_is_what_its_page_says(files: dict[str, Conversion], record_property: Record) -> None:
    for kind, (least, most) in BITS.items():
        made = files[f"base-{kind}"]
        record_property(kind, f"{made.size_bytes} bytes, {made.bits_per_weight:.3f} bits per weight")
        assert least <= made.bits_per_weight <= most
        assert f"`{kind}` | {made.size_bytes / 1e6:.1f} MB" in (ROOT / "docs/convert.md").read_text()
