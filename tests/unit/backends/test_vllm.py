"""vLLM as an engine: how it is started, and what it is asked; against a server that answers as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import TypeAdapter

from app.config.model import AnyBackend
from backends import kinds
from backends.endpoint import Endpoint, UsageMode
from backends.engine import Probe
from backends.errors import EngineFailed
from backends.remote.config import RemoteConfig
from backends.remote.engine import Remote
from backends.vllm.config import VllmConfig
from backends.vllm.engine import CannotStart, Vllm
from backends.vllm.facts import of_vllm
from tests.rigs.adapter_folder import adapter, base_model, foreign_path

MODEL = "org/model"


def config(**values: object) -> VllmConfig:
    return VllmConfig.model_validate({"kind": "vllm", "model": MODEL, **values})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, and a `vllm` that nobody calls."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "vllm").touch(mode=0o755)
    return tmp_path


def test_the_key_goes_by_environment_and_no_secret_of_ours_goes_along(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "ours")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    engine = Vllm("gpu", config(model=str(folder), command=str(folder / "vllm")))

    launch = engine.launch(4711, ["GPU-a"], "theirs")

    assert launch.env["VLLM_API_KEY"] == "theirs"
    assert launch.env["HF_HUB_OFFLINE"] == "1"
    assert launch.env["CUDA_VISIBLE_DEVICES"] == "GPU-a"
    assert not {"API_KEY", "VLLM_LOGGING_LEVEL"} & launch.env.keys()
    assert "theirs" not in " ".join(launch.argv)
    assert launch.argv[:3] == (str(folder / "vllm"), "serve", str(folder))


def test_the_rank_of_the_adapters_is_read_from_their_folders(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"r": 40}')
    adapters = {"law": str(folder), "broken": "/no/such/folder"}

    launch = Vllm("gpu", config(model=str(folder), command=str(folder / "vllm"), adapters=adapters)).launch(1, (), "k")

    assert "--max-lora-rank=64" in launch.argv


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"command": "/no/such/vllm"}, "the command '/no/such/vllm' is not there: install vLLM in an environment"),
        ({"model": "/no/such/model"}, "the model's folder 'model' is not there"),
        ({"model": "./tests"}, "the folder 'tests' holds no model: it has no config.json"),
    ],
)
def test_what_cannot_start_fails_at_once(folder: Path, values: dict[str, object], sentence: str) -> None:
    engine = Vllm("gpu", config(**{"model": str(folder), "command": str(folder / "vllm"), **values}))

    with pytest.raises(CannotStart) as caught:
        engine.launch(1, (), "k")

    assert sentence in caught.value.message


def test_its_endpoint_is_on_this_machine_and_for_its_key_only() -> None:
    endpoint = Vllm("gpu", config()).endpoint(7, 4711, "k")

    assert (endpoint.address, endpoint.generation) == ("http://127.0.0.1:4711/v1", 7)
    assert endpoint.headers == {"authorization": "Bearer k"}
    assert endpoint.is_ours
    assert endpoint.usage is UsageMode.ASK


def test_the_kind_is_known_and_drains_as_long_as_the_gateway(folder: Path) -> None:
    made = kinds.engine("gpu", config(model=str(folder), command=str(folder / "vllm")), drain_s=7)
    launch = made.launch(1, (), "k")

    assert launch is not None
    assert "--shutdown-timeout=7" in launch.argv


# -- a server that answers as the test says

Answers = dict[str, tuple[int, object]]
METRICS = b"""# HELP
vllm:num_requests_running{engine="0",model_name="gpu"} 2.0
vllm:num_requests_running{engine="1",model_name="gpu"} 1.0
vllm:num_requests_waiting{engine="0",model_name="gpu"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:generation_tokens_total{engine="0",model_name="gpu"} 1e+06
vllm:prompt_tokens_total{engine="0",model_name="gpu"} 10.0
vllm:iteration_tokens_total_count{engine="0",model_name="gpu"} 5.0
vllm:kv_cache_usage_perc{engine="0",model_name="gpu"} 0.25
"""
LISTED = {"data": [{"id": "gpu", "parent": None}, {"id": "law", "parent": "gpu"}]}
UP: Answers = {
    "/health": (200, b""),
    "/v1/models": (200, LISTED),
    "/metrics": (200, METRICS),
    "/version": (200, {"version": "0.32.0"}),
}
SAID = of_vllm(config(), LISTED, None)


@contextlib.asynccontextmanager
async def server(answers: Answers) -> AsyncIterator[tuple[Endpoint, list[tuple[str, Any]]]]:
    """A server with these answers, and what it was asked. It never answers where there is None."""
    asked: list[tuple[str, Any]] = []
    silent: list[asyncio.Task[Any] | None] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((int(line.split(":")[1]) for line in head.lower().split("\r\n") if "content-length" in line), 0)
        body = await reader.readexactly(length)
        path = head.split()[1]
        asked.append((path, json.loads(body) if body else None))
        status, content = answers.get(path, (404, {"detail": "Not Found"}))
        if content is None:
            silent.append(asyncio.current_task())
            await reader.read()
            writer.close()
            await writer.wait_closed()
            return
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(data)}\r\nconnection: close\r\n\r\n".encode() + data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield Endpoint("gpu", 1, f"http://127.0.0.1:{port}/v1", {"authorization": "Bearer k"}), asked
        await asyncio.gather(*filter(None, silent))


async def test_a_probe_gives_its_models_its_requests_and_its_progress() -> None:
    async with server(UP) as (endpoint, _):
        probe = await Vllm("gpu", config()).probe(endpoint)

    seen = Probe(True, models=("gpu", "law"), in_flight=7, progress=(1e6, 10.0, 5.0, 0.25))
    assert probe == dataclasses.replace(seen, facts=SAID, version="0.32.0", metrics=page_of(endpoint))


async def test_its_version_is_asked_once_for_each_start() -> None:
    async with server({**UP, "/version": (404, b"")}) as (endpoint, asked):
        engine = Vllm("gpu", config())
        probes = [await engine.probe(endpoint) for _ in range(2)]
        await engine.probe(msgspec.structs.replace(endpoint, generation=2))

    assert [probe.version for probe in probes] == [None, None]
    assert [path for path, _ in asked].count("/version") == 2


DOWN: dict[str, tuple[Answers, Probe]] = {
    "dead core": ({"/health": (503, b"")}, Probe(False, "its core process died", is_dead=True)),
    "odd health": ({"/health": (500, b"")}, Probe(False, "its health check ends with status 500")),
    "somebody else": ({**UP, "/v1/models": (401, b"")}, Probe(False, "another program answers on its port")),
    "no metrics": ({**UP, "/metrics": (404, b"")}, Probe(True, models=("gpu", "law"), facts=SAID, version="0.32.0")),
    "other metrics": (
        {**UP, "/metrics": (200, b"up 1\n")},
        Probe(True, models=("gpu", "law"), facts=SAID, version="0.32.0"),
    ),
}


async def test_one_that_refuses_connections_is_dead() -> None:
    """Of every kind that we run: what has closed its port never opens it again."""
    async with server({}) as (endpoint, _):
        pass
    sections: list[dict[str, object]] = [
        {"kind": "vllm", "model": MODEL},
        {"kind": "llama_cpp", "model": "a.gguf"},
        {"kind": "ollama", "managed": True},
    ]
    engines = [kinds.engine("gpu", TypeAdapter(AnyBackend).validate_python(section)) for section in sections]

    probes = [await engine.probe(endpoint) for engine in engines]

    assert [(probe.is_up, probe.is_dead) for probe in probes] == [(False, True)] * 3


@pytest.mark.parametrize("case", DOWN)
async def test_a_probe_knows_what_is_wrong(case: str) -> None:
    answers, probe = DOWN[case]

    async with server(answers) as (endpoint, _):
        expected = dataclasses.replace(probe, metrics=page_of(endpoint)) if probe.is_up else probe
        assert await Vllm("gpu", config()).probe(endpoint) == expected


def page_of(endpoint: Endpoint) -> str:
    """Where this engine shows its metrics."""
    return f"{endpoint.address.removesuffix('/v1')}/metrics"


@pytest.mark.parametrize(
    ("task", "path", "body"),
    [
        ("embed", "/v1/embeddings", {"model": "gpu", "input": [1]}),
        ("classify", "/classify", {"model": "gpu", "input": "a"}),
    ],
)
async def test_it_is_warmed_up_by_its_task(task: str, path: str, body: object) -> None:
    async with server({path: (200, {})}) as (endpoint, asked):
        await Vllm("gpu", config(task=task)).warm_up(endpoint)

    assert asked == [(path, body)]


PLAIN = {"model": "gpu", "prompt": [1], "max_tokens": 1}
RANKED = {**PLAIN, "logprobs": 1}


async def test_its_first_request_with_logprobs_is_ours_once_for_each_start() -> None:
    """It compiles, and every other request would wait for it."""
    async with server({"/v1/completions": (200, {})}) as (endpoint, asked):
        engine = Vllm("gpu", config())
        await engine.warm_up(endpoint)
        await engine.warm_up(endpoint)
        await engine.warm_up(msgspec.structs.replace(endpoint, generation=2))

    assert [body for _, body in asked] == [PLAIN, RANKED, PLAIN, PLAIN, RANKED]


async def test_each_of_its_cores_compiles_for_itself() -> None:
    async with server({"/v1/completions": (200, {})}) as (endpoint, asked):
        await Vllm("gpu", config(data_parallel_size=3)).warm_up(endpoint)

    assert [body for _, body in asked] == [PLAIN, RANKED, RANKED, RANKED]


async def test_it_is_not_asked_for_logprobs_where_that_is_switched_off() -> None:
    async with server({"/v1/completions": (200, {})}) as (endpoint, asked):
        await Vllm("gpu", config(warm_up_logprobs=False)).warm_up(endpoint)

    assert [body for _, body in asked] == [PLAIN]


@contextlib.asynccontextmanager
async def ranking(status: int) -> AsyncIterator[Endpoint]:
    """A server that answers requests with `logprobs` with this status; 0: it goes away."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(int(line.split(":")[1]) for line in head.split("\r\n") if "content-length" in line)
        code = status if b"logprobs" in await reader.readexactly(length) else 200
        if code:
            writer.write(f"HTTP/1.1 {code} X\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}".encode())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield Endpoint("gpu", 1, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")


async def test_one_that_refuses_logprobs_serves_all_the_same() -> None:
    """`--max-logprobs 0`."""
    async with ranking(400) as endpoint:
        await Vllm("gpu", config()).warm_up(endpoint)


@pytest.mark.parametrize(
    ("status", "sentence"), [(500, "with `logprobs` failed"), (0, "with `logprobs` got no response")]
)
async def test_one_that_dies_of_logprobs_does_not_serve(status: int, sentence: str) -> None:
    async with ranking(status) as endpoint:
        with pytest.raises(EngineFailed, match=sentence):
            await Vllm("gpu", config()).warm_up(endpoint)


COLD: dict[str, tuple[Answers, str]] = {
    "a failure": (
        {"/v1/completions": (500, {"error": {"message": "it\nbroke"}})},
        r"healthy, but its first request failed: it broke \(status 500\)",
    ),
    "a dead core": (
        {"/v1/completions": (500, {"error": {"message": "EngineCore encountered an issue. See stack trace (above)"}})},
        r"healthy, but its first request failed$",
    ),
    "no text": ({}, "the model generates no text: set `task`"),
}


@pytest.mark.parametrize("case", COLD)
async def test_one_that_is_healthy_and_cannot_work_is_found_out(case: str) -> None:
    answers, sentence = COLD[case]

    async with server(answers) as (endpoint, _):
        with pytest.raises(EngineFailed, match=sentence):
            await Vllm("gpu", config()).warm_up(endpoint)


def test_what_it_compiles_is_kept_unless_the_configuration_says_where(folder: Path) -> None:
    caches = folder / "compiled"
    called = {"model": str(folder), "command": str(folder / "vllm"), "env": {"TRITON_CACHE_DIR": "/mine"}}

    first, second = (kinds.engine("gpu", config(**called), caches=caches).launch(1, (), "k") for _ in range(2))

    assert first is not None
    assert second is not None
    assert first.env["TORCHINDUCTOR_CACHE_DIR"] == second.env["TORCHINDUCTOR_CACHE_DIR"]
    assert Path(first.env["TORCHINDUCTOR_CACHE_DIR"]).is_relative_to(caches)
    assert Path(first.env["VLLM_CACHE_ROOT"]).is_relative_to(caches)
    assert first.env["TRITON_CACHE_DIR"] == "/mine"
    assert next(iter(first.env)) == next(iter(Vllm("gpu", config(**called)).launch(1, (), "k").env))


async def test_a_machine_that_helps_another_is_asked_nothing() -> None:
    engine = Vllm("gpu", config(nnodes=2, node_rank=1))
    nowhere = engine.endpoint(1, 1, "k")

    assert await engine.probe(nowhere) == Probe(True, models=())
    await engine.warm_up(nowhere)


def test_what_is_not_configured_it_cannot_do() -> None:
    engine = Vllm("gpu", config())

    assert (engine.sleeper, engine.adapters) == (None, None)


async def test_it_is_put_to_sleep_and_woken() -> None:
    sleeper = Vllm("gpu", config(sleep=1)).sleeper
    answers: Answers = {
        "/sleep?level=2": (200, {}),
        "/wake_up": (200, {}),
    }
    assert sleeper is not None

    async with server(answers) as (endpoint, asked):
        await sleeper.sleep(endpoint, 2)
        await sleeper.wake_up(endpoint)

    assert asked == [("/sleep?level=2", {}), ("/wake_up", {})]


async def test_one_that_cannot_sleep_says_so() -> None:
    sleeper = Vllm("gpu", config(sleep=1)).sleeper
    assert sleeper is not None

    async with server({}) as (endpoint, _):
        with pytest.raises(EngineFailed, match=r"sleep failed: status 404"):
            await sleeper.sleep(endpoint, 1)


@pytest.mark.parametrize(("name", "in_place"), [("law", True), ("new", False)])
async def test_an_adapter_is_loaded_over_the_one_of_its_name(folder: Path, name: str, in_place: bool) -> None:
    adapters = Vllm("gpu", config(enable_lora=True)).adapters
    adapter(folder / "law", base_model(folder))
    assert adapters is not None

    async with server({**UP, "/v1/load_lora_adapter": (200, b"Success")}) as (endpoint, asked):
        await adapters.load(endpoint, name, f"{folder}/../{folder.name}/law")

    body = {"lora_name": name, "lora_path": f"{folder}/law", "load_inplace": in_place}
    assert asked[-1] == ("/v1/load_lora_adapter", body)


async def test_each_load_of_a_folder_spells_its_path_in_another_way(folder: Path) -> None:
    """vLLM keeps what it has computed with an adapter under its name and its path, also when its weights are others."""
    adapters = Vllm("gpu", config(enable_lora=True)).adapters
    adapter(folder / "law", base_model(folder))
    assert adapters is not None

    async with server({**UP, "/v1/load_lora_adapter": (200, b"Success")}) as (endpoint, asked):
        for _ in range(3):
            await adapters.load(endpoint, "law", f"{folder}/law")

    paths = [body["lora_path"] for path, body in asked if path == "/v1/load_lora_adapter"]
    assert len(set(paths)) == 3
    assert {path.replace("/.", "") for path in paths} == {f"{folder}/law"}


async def test_an_adapter_is_held_against_the_base_and_against_what_the_engine_was_started_for(folder: Path) -> None:
    base = base_model(folder)
    engine = Vllm("gpu", config(enable_lora=True, model=str(base), command=str(folder / "vllm")))
    engine.launch(1, (), "k")
    high, foreign = adapter(folder / "high", base, rank=17), adapter(folder / "foreign", base, foreign_path)
    assert engine.adapters is not None

    async with server(UP) as (endpoint, asked):
        with pytest.raises(
            EngineFailed, match="the adapter 'law' has the rank 17, and the engine was started for at m"
        ):
            await engine.adapters.load(endpoint, "law", str(high))
        with pytest.raises(EngineFailed, match="the adapter 'law' has 4 of 4 modules that the base does not have"):
            await engine.adapters.load(endpoint, "law", str(foreign))

    assert asked == [], "the engine has seen none of them"


async def test_an_adapter_that_is_not_valid_never_reaches_the_engine(tmp_path: Path) -> None:
    adapters = Vllm("gpu", config(enable_lora=True)).adapters
    assert adapters is not None

    async with server(UP) as (endpoint, asked):
        with pytest.raises(EngineFailed, match="the adapter 'law' holds no adapter: it has no adapter_config"):
            await adapters.load(endpoint, "law", str(tmp_path))

    assert asked == []


REFUSED: dict[str, tuple[Answers, Callable[[Any, Endpoint, Path], Any], str]] = {
    "load": (
        {**UP, "/v1/load_lora_adapter": (400, {"error": {"message": "rank 64 is too high"}})},
        lambda adapters, endpoint, folder: adapters.load(endpoint, "law", str(folder)),
        r"the adapter 'law' was not loaded: rank 64 is too high \(status 400\)",
    ),
    "unload": (
        {"/v1/unload_lora_adapter": (500, b"")},
        lambda adapters, endpoint, folder: adapters.unload(endpoint, "law"),
        "the adapter 'law' was not unloaded: status 500",
    ),
    "list": ({}, lambda adapters, endpoint, folder: adapters.listed(endpoint), "does not list its models"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refusal_has_the_engines_own_text(folder: Path, case: str) -> None:
    answers, ask, sentence = REFUSED[case]
    adapter(folder, base_model(folder))

    async with server(answers) as (endpoint, _):
        with pytest.raises(EngineFailed, match=sentence):
            await ask(Vllm("gpu", config(enable_lora=True)).adapters, endpoint, folder)


async def test_adapters_are_listed_and_forgetting_an_unknown_one_is_nothing() -> None:
    adapters = Vllm("gpu", config(enable_lora=True)).adapters
    assert adapters is not None

    async with server(UP) as (endpoint, asked):
        assert await adapters.listed(endpoint) == ("law",)
        await adapters.unload(endpoint, "other")

    assert asked[-1] == ("/v1/unload_lora_adapter", {"lora_name": "other"})


@pytest.mark.parametrize("status", [200, 404])
async def test_one_that_somebody_else_runs_is_watched_by_its_metrics(status: int) -> None:
    listed = {"data": [{"id": "big", "owned_by": "vllm"}]}

    async with server({"/v1/models": (200, listed), "/metrics": (status, METRICS)}) as (endpoint, asked):
        remote = Remote("far", RemoteConfig(kind="remote", url=endpoint.address))
        probe = await remote.probe(remote.endpoint(1, 0, ""))

    assert [path for path, _ in asked] == ["/v1/models", "/health", "/metrics"]
    assert (probe.models, probe.in_flight) == (("big",), 7 if status == 200 else None)
