"""The certificate on real vLLM: a good serving is not accused, and each planted fault is named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.certificate import certify
from app.certificate.certificate import Certificate, Fault, Finding
from app.certificate.expectation import folder_digest
from app.certificate.serving import Expectation
from app.reference.reference import Reference
from tests.live.engines import MODELS, Live, Record, backend, config
from tests.rigs import planted
from tests.rigs.planted import SHOWN, TRAINED, TRAINED_IN_WORDS, observed

_TURN = "<|im_start|>{}\n{}<|im_end|>\n"
RENDERED = {
    name: "".join(_TURN.format(each["role"], each["content"]) for each in chat.messages) + "<|im_start|>assistant\n"
    for name, chat in SHOWN.items()
}
# The tiny model's own template has no system prompt of its own.
TINY = dataclasses.replace(TRAINED, rendered=RENDERED, own=RENDERED, default_system=None)
IN_WORDS = dataclasses.replace(TRAINED_IN_WORDS, own=RENDERED)
GOOD = Expectation(context_length=1024, sha256=folder_digest(MODELS / "tiny"))


def judged(gateway: Live, name: str, reference: Reference, expected: Expectation = GOOD) -> Certificate:
    """The certificate of a public name."""
    seen = observed(gateway, name, reference, expected)
    return certify.judge(seen, reference, expected=expected, chats=SHOWN, date="2026-11-27")


def test_a_good_serving_is_not_accused(live: Live, record_property: Record) -> None:
    made = judged(live, "tiny", TINY)

    record_property("lines", {line.key: str(line.verdict) for line in made.lines})
    assert [line.how for line in made.lines if line.verdict is Finding.DIFFERS] == []
    assert {line.key for line in made.lines if line.verdict is Finding.SAME} == {
        *("prompt", "own template", "stops", "context", "sampling", "files"),
    }


def test_what_is_expected_of_another_training_and_another_file_is_named(live: Live) -> None:
    made = judged(live, "tiny", IN_WORDS, Expectation(sha256="0" * 64, context_length=4096))

    assert {Fault.NOT_TRAINED, Fault.WRONG_FILE, Fault.SHORT_CONTEXT} <= set(made.faults)


def edited(folder: Path, name: str, edit: Callable[[Path], None]) -> Path:
    """A copy of the tiny model, changed."""
    copy = folder / name
    shutil.copytree(MODELS / "tiny", copy)
    edit(copy)
    return copy


def without_template(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()


def without_stop(copy: Path) -> None:
    """Its end of a turn is the padding now, in each of the places where an engine looks."""
    for name, key, value in (
        ("config.json", "eos_token_id", 0),
        ("generation_config.json", "eos_token_id", 0),
        ("tokenizer_config.json", "eos_token", "<|endoftext|>"),
    ):
        file = copy / name
        file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))


def with_other_weights(copy: Path) -> None:
    """One bit is another; and its tokenizer has a token that begins a text."""
    settings = copy / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "bos_token": "<|im_start|>"}))
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1
    weights.write_bytes(data)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Four engines with two faults each, and a name whose top_p is forced."""
    folder = tmp_path_factory.mktemp("wrong")
    for name, text in (("llama_3", planted.LLAMA_3), ("no_system", planted.NO_SYSTEM), ("twice", TWICE)):
        (folder / f"{name}.jinja").write_text(text)

    def engine(name: str, model: Path, **settings: str) -> str:
        return backend(name, str(model), start="demand", **settings)

    engines = (
        engine("bare", edited(folder, "a", without_template), max_model_len="512"),
        engine("foreign", edited(folder, "b", without_stop), chat_template=f"{folder}/llama_3.jinja"),
        engine("doubled", edited(folder, "c", with_other_weights), chat_template=f"{folder}/twice.jinja"),
        engine(
            "lost",
            MODELS / "tiny",
            chat_template=f"{folder}/no_system.jinja",
            override_generation_config="{top_p: 0.1}",
        ),
    )
    more = "  forced: {backend: lost, model: lost, overrides: {top_p: 0.1}}\n"
    with Live(folder, config(*engines) + more) as gateway:
        gateway.line("listens on")
        yield gateway


TWICE = "<|im_start|>" + (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
PLANTED: dict[str, tuple[set[Fault], Any]] = {
    "bare": ({Fault.NO_TEMPLATE, Fault.SHORT_CONTEXT}, GOOD),
    "foreign": ({Fault.OTHER_FAMILY, Fault.NO_STOP}, GOOD),
    "doubled": ({Fault.BOS_DOUBLED, Fault.WRONG_FILE}, GOOD),
    "lost": ({Fault.SYSTEM_LOST, Fault.OTHER_SAMPLING}, GOOD),
    "forced": ({Fault.SYSTEM_LOST, Fault.FORCED_SAMPLING}, GOOD),
}


@pytest.mark.full
@pytest.mark.parametrize("name", PLANTED)
def test_each_planted_fault_is_named(wrong: Live, name: str, record_property: Record) -> None:
    faults, expected = PLANTED[name]

    made = judged(wrong, name, TINY, expected)

    record_property("named", [str(fault) for fault in made.faults])
    assert faults <= set(made.faults)
