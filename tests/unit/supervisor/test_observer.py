"""Observations of an Ollama daemon through a real relay: what its Modelfile does, and each fault that it can plant."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from app.certificate import certify
from app.certificate.certificate import Certificate, Fault, Finding
from app.certificate.observation import Observation, Questions, SeenSampling
from app.certificate.serving import Expectation
from app.reference.reference import Reference
from app.supervisor.admin.certificates import CertificateStore
from app.supervisor.admin.observer import ModelAsker, Observer
from app.supervisor.fleet.waiters import WaitOutcome
from app.table import PublicModel, Rules, Target
from backends.http.probe_client import Reply
from backends.ollama.config import OllamaConfig
from tests.fakes.ollama import FakeOllama
from tests.fakes.ollama_models import Model
from tests.rigs.ollama import row
from tests.rigs.planted import SHOWN, TRAINED, TRAINED_IN_WORDS, chatml, in_words
from tests.rigs.relay import running

STOP = {"stop": ["<|im_end|>"]}
RULES = {"law": Rules(), "forced": Rules(overrides={"top_p": 0.1})}


def llama_3(messages: Any) -> str:
    return "".join(f"<|start_header_id|>{each['role']}<|end_header_id|>{each['content']}" for each in messages)


def without_system(messages: Any) -> str:
    return chatml([each for each in messages if each["role"] != "system"] or messages)


@contextlib.asynccontextmanager
async def observing(daemon: FakeOllama, model: Model, **config: Any) -> AsyncIterator[tuple[Any, Observer]]:
    """A relay whose names `law` and `forced` are a model of the daemon's, and who observes them."""
    daemon.store.add(model)
    backend = await row(daemon, **config)
    served = {name: PublicModel(name, (Target("ollama", model.name),), rules=rules) for name, rules in RULES.items()}
    async with running({"ollama": backend}, served) as rig:
        store = CertificateStore(url=rig.url)
        store.refresh({"ollama": OllamaConfig(kind="ollama", url=daemon.url, **config)})

        async def wanted(_: str) -> WaitOutcome:
            return WaitOutcome(True)

        yield rig, Observer(store, wanted, lambda: rig.table.backends)


async def judged(
    rig: Any, observer: Observer, reference: Reference = TRAINED, expected: Expectation | None = None, name: str = "law"
) -> Certificate:
    """The certificate of a name, from what is observed."""
    asked: list[Questions] = []

    def note(_method: str, _path: str, body: Any) -> Any:
        asked.append(msgspec.convert(body, Questions))
        return msgspec.to_builtins(Observation(name, "ollama", "ollama", "Ollama"))

    wanted = expected or Expectation()
    certify.observe(name, reference, note, expected=wanted, chats=SHOWN, max_tokens=4)
    seen = await observer.observe(rig.table, name, Questions())
    for questions in asked:
        seen = certify.merged(seen, await observer.observe(rig.table, name, questions), questions)
    return certify.judge(seen, reference, expected=wanted, chats=SHOWN, date="2026-11-27")


async def test_a_good_model_of_a_daemon_is_not_accused() -> None:
    model = Model("law:latest", parameters=STOP, template="{{ .Messages }}")
    async with FakeOllama() as daemon, observing(daemon, model, num_ctx=1024) as (rig, observer):
        daemon.renders = chatml
        made = await judged(rig, observer, expected=Expectation(context_length=1024, sha256=model.weights))

    assert [line.how for line in made.lines if line.verdict is Finding.DIFFERS and line.key != "sampling"] == []
    assert {line.key for line in made.lines if line.verdict is Finding.SAME} >= {
        "prompt",
        "stops",
        "context",
        "files",
    }


async def test_what_a_modelfile_plants_is_named() -> None:
    """The daemon renders by what stands in `renders`; each of these is one way in which a Modelfile goes wrong."""
    rendered = {
        Fault.OTHER_FAMILY: (llama_3, TRAINED),
        Fault.NOT_TRAINED: (chatml, TRAINED_IN_WORDS),
        Fault.SYSTEM_LOST: (without_system, TRAINED),
        Fault.OTHER_PROMPT: (lambda messages: chatml(messages) + " ", TRAINED),
    }
    model = Model("law:latest", parameters=STOP, template="{{ .Messages }}")
    async with FakeOllama() as daemon, observing(daemon, model) as (rig, observer):
        for fault, (template, reference) in rendered.items():
            daemon.renders = template
            assert fault in (await judged(rig, observer, reference)).faults


async def test_settings_of_a_modelfile_are_named() -> None:
    model = Model("law:latest", parameters={**STOP, "top_p": 0.1}, template="{{ .Prompt }}")
    expected = Expectation(context_length=2048, sha256="0" * 64)
    async with FakeOllama() as daemon, observing(daemon, model, num_ctx=512) as (rig, observer):
        daemon.renders = lambda messages: messages[-1]["content"]
        made = await judged(rig, observer, expected=expected)
        forced = await judged(rig, observer, name="forced")

    named = {Fault.NO_TEMPLATE, Fault.SHORT_CONTEXT, Fault.WRONG_FILE, Fault.OTHER_SAMPLING}
    assert named <= set(made.faults)
    assert Fault.FORCED_SAMPLING in forced.faults


async def test_the_template_of_the_training_is_seen_to_be_served() -> None:
    model = Model("law:latest", parameters=STOP, template="{{ .Messages }}")
    async with FakeOllama() as daemon, observing(daemon, model) as (rig, observer):
        daemon.renders = in_words
        made = await judged(rig, observer, TRAINED_IN_WORDS)

    assert [line.verdict for line in made.lines[:2]] == [Finding.SAME, Finding.SAME]


class Cold(ModelAsker):
    """Asks as the real one does; the first so many drawn answers are told as an engine with an empty prompt cache, or
    one that never says the same twice, would round them.
    """

    def __init__(self, asker: ModelAsker, odd: tuple[int, ...]) -> None:
        self._real = asker
        self._odd = odd
        self._drawn = 0

    async def ask(self, path: str, body: Mapping[str, Any]) -> Reply:
        reply = await self._real.ask(path, body)
        if path != "/v1/chat/completions" or "seed" not in body:
            return reply
        self._drawn += 1
        told = reply.json()
        told["choices"][0]["message"]["content"] = f"by {body.get('top_p')}" if "top_p" in body else "by itself"
        if self._drawn in self._odd:
            told["choices"][0]["message"]["content"] = f"odd {self._drawn}"
        elif self._is_true(body):
            told["choices"][0]["message"]["content"] = "as claimed"
        return Reply(reply.status, json.dumps(told).encode())

    def _is_true(self, body: Mapping[str, Any]) -> bool:
        return body.get("temperature") != 1.5 and self._odd != ()


async def sampled(odd: tuple[int, ...]) -> SeenSampling:
    """What is seen of drawing, where these drawn answers are odd; without any, the engine draws otherwise than told."""
    model = Model("law:latest", parameters=STOP, template="{{ .Messages }}")
    async with FakeOllama() as daemon, observing(daemon, model) as (rig, observer):
        observer._asker = Cold(observer._asker, odd)
        return (await observer.observe(rig.table, "law", Questions(sampling=True))).sampling


async def test_an_answer_that_only_an_empty_prompt_cache_makes_other_accuses_nobody() -> None:
    assert (await sampled((1,))).is_so is True


async def test_answers_that_repeat_and_differ_do() -> None:
    assert (await sampled(())).is_so is False


async def test_answers_that_do_not_repeat_say_nothing() -> None:
    assert (await sampled((1, 3, 5))).is_so is None


async def test_a_daemon_that_is_too_old_to_tell_is_not_checkable() -> None:
    model = Model("law:latest", parameters=STOP, template="{{ .Messages }}")
    async with FakeOllama() as daemon, observing(daemon, model) as (rig, observer):
        made = await judged(rig, observer)

    assert made.lines[0].verdict is Finding.UNCHECKED
    assert "too old" in made.lines[0].how
