"""The admin application, on a real Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any, cast

import httpx
import jsonschema
import pytest

from app.certificate.certificate import Certificate
from app.certificate.observation import Observation, Questions, SeenStop
from app.config.yaml_document import ConfigError
from app.supervisor.admin import views
from app.supervisor.admin.app import AdminServer, create_admin
from app.supervisor.admin.plan_schemas import PlanAnswer, RelayPlan
from app.supervisor.admin.schemas import (
    AdapterAnswer,
    AdapterOrder,
    AdaptersAnswer,
    BackendAnswer,
    Health,
    Logs,
    Models,
    ProbeAnswer,
    ProbesAnswer,
    RelayProcesses,
    Reloaded,
    Status,
)
from app.supervisor.admin.views import models, overall
from app.supervisor.comparisons.shared_runs import Runs
from app.supervisor.comparisons.shared_votes import Votes
from app.supervisor.comparisons.votes import VoteStore
from app.supervisor.fleet.past_lives import Log, PastLife
from app.supervisor.metrics.metrics_routes import BothPages
from app.supervisor.state_folder import bind_private
from app.supervisor.team.team import Team
from app.table import Backend, PublicModel, Table, Target, Wildcard
from backends.endpoint import CAPABILITIES, State
from backends.process.log_tail import Printed
from tests.rigs.audit import RememberedTeam

VERSION = "9.8.7"
ERROR_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "additionalProperties": False,
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "minLength": 1},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


class StubMetrics:
    """Two pages of one line."""

    async def gateway(self) -> bytes:
        return b"up 1\n"

    async def engines(self) -> bytes:
        return b'vllm:up{backend="demo"} 1\n'


class StubControl:
    """One backend, `demo`."""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.runs = Runs(Path("comparisons"), None, str)
        self.votes = Votes(VoteStore(Path("votes.jsonl"), time.time), None, time.time)
        self.team = cast("Team", RememberedTeam())
        self.errors: list[str] = []

    def health(self) -> Health:
        return Health(status="ok", version=VERSION, uptime_s=1.5, models=(), backends=(self._backend("demo"),))

    def models(self) -> Models:
        return Models(models=(), wildcards=("ollama/*",))

    def status(self) -> Status:
        relays = RelayProcesses(pids=(7,), connected=(7,), restarts=0)
        return Status(
            health=self.health(),
            pid=1,
            address="http://127.0.0.1:8000",
            config=None,
            state_folder="/state",
            table_version=3,
            leases=0,
            relays=relays,
        )

    async def plan(self) -> PlanAnswer:
        return PlanAnswer(
            memory_gb=8.0, relays=RelayPlan(count=1, is_auto=False, cores=2, engine_cores=0), gpus=(), seats=()
        )

    @property
    def metrics(self) -> BothPages:
        return StubMetrics()

    async def probe(self, model: str, capabilities: Collection[str], *, again: bool) -> ProbesAnswer:
        self._ordered(f"probe {','.join(capabilities)} {again}", model)
        return ProbesAnswer(model=model, probes=(ProbeAnswer(backend="demo", capabilities={"chat": "verified"}),))

    async def observe(self, model: str, questions: Questions) -> Observation:
        self._ordered(f"observe {','.join(questions.stops)}", model)
        return Observation(model, "demo", "llama_cpp", "the embedded engine", stops={"</s>": SeenStop(True)})

    async def keep_certificate(self, model: str, certificate: Certificate) -> Certificate:
        self._ordered(f"keep {certificate.summary}", model)
        return certificate

    def logs(self, backend: str, lines: int, life: int | None = None) -> Logs:
        self._backend(backend)
        written = [f"line {number}" for number in range(300)]
        lives = [PastLife(1, list, "it was ended by signal 11", 60.0), PastLife(2, lambda: written)]
        log = Log(lives[1], written, lives, Printed(300)) if life in (None, 2) else None
        return views.logs(backend, lines, life, log, now=61.5)

    async def start(self, backend: str) -> BackendAnswer:
        return self._ordered("start", backend)

    async def stop(self, backend: str) -> BackendAnswer:
        return self._ordered("stop", backend)

    async def restart(self, backend: str) -> BackendAnswer:
        return self._ordered("restart", backend)

    def adapters(self, backend: str) -> AdaptersAnswer:
        self._backend(backend)
        return AdaptersAnswer(backend=backend, adapters=(AdapterAnswer(name="law", path="/law"),))

    async def load_adapter(self, backend: str, order: AdapterOrder) -> AdaptersAnswer:
        unproved = "" if order.proof == "on" else "unproved "
        self._ordered(f"load {unproved}{order.name} {order.path} into", backend)
        return self.adapters(backend)

    async def unload_adapter(self, backend: str, name: str) -> AdaptersAnswer:
        self._ordered(f"unload {name} from", backend)
        return self.adapters(backend)

    async def reload(self) -> Reloaded:
        if self.errors:
            raise ConfigError(self.errors)
        return Reloaded(table_version=4, needs_restart=("server.port",))

    def _ordered(self, order: str, backend: str) -> BackendAnswer:
        answer = self._backend(backend)
        self.orders.append(f"{order} {backend}")
        return answer

    def _backend(self, name: str) -> BackendAnswer:
        if name == "broken":
            raise RuntimeError("a bug")
        return {"demo": BackendAnswer(name="demo", kind="llama_cpp", state=State.READY, generation=1)}[name]


@contextlib.asynccontextmanager
async def serving(control: StubControl, path: Path, *, docs: bool = False) -> AsyncIterator[httpx.AsyncClient]:
    server = AdminServer(create_admin(control, VERSION, docs=docs))
    listening = bind_private(path)
    listening.listen()
    running = asyncio.create_task(server.serve([listening]))
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
            yield client
    finally:
        server.should_exit = True
        await running


@pytest.fixture
def control() -> StubControl:
    return StubControl()


@pytest.fixture
async def client(control: StubControl, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(control, tmp_path / "control.sock") as client:
        yield client


def _error(answer: httpx.Response) -> dict[str, Any]:
    jsonschema.validate(answer.json(), ERROR_SCHEMA)
    error: dict[str, Any] = answer.json()["error"]
    return error


async def test_health_says_version_models_and_backends(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/health")).json()

    assert answer["status"] == "ok"
    assert answer["version"] == VERSION
    assert [(backend["name"], backend["state"]) for backend in answer["backends"]] == [("demo", "ready")]


@pytest.mark.parametrize(
    "path", ["/version", "/admin/models", "/admin/status", "/admin/plan", "/openapi.json", "/metrics"]
)
async def test_what_can_be_read_can_be_asked_for_with_head(client: httpx.AsyncClient, path: str) -> None:
    full, head = await client.get(path), await client.head(path)

    assert full.status_code == head.status_code == 200
    assert full.content
    assert head.content == b""
    assert head.headers["content-length"] == full.headers["content-length"]


async def test_metrics_are_prometheus_text(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")

    assert answer.content == b"up 1\n"
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


async def test_logs_are_the_last_lines(client: httpx.AsyncClient) -> None:
    assert (await client.get("/admin/backends/demo/logs?lines=2")).json() == {
        "backend": "demo",
        "life": 2,
        "lines": ["line 298", "line 299"],
        "printed": 300,
        "unfinished": False,
        "lives": [
            {"life": 1, "reason": "it was ended by signal 11", "ended_ago_s": 1.5},
            {"life": 2, "reason": None, "ended_ago_s": None},
        ],
    }
    assert len((await client.get("/admin/backends/demo/logs")).json()["lines"]) == 200


async def test_a_life_that_is_no_longer_known_is_said_so(client: httpx.AsyncClient) -> None:
    answer = await client.get("/admin/backends/demo/logs?life=7")

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "life_not_found")
    assert "'demo' has no start number 7" in answer.json()["error"]["message"]


async def test_adapters_are_listed_loaded_and_unloaded(client: httpx.AsyncClient, control: StubControl) -> None:
    told = {"backend": "demo", "adapters": [{"name": "law", "path": "/law", "reason": None, "proof": None}]}

    assert (await client.get("/admin/backends/demo/adapters")).json() == told
    loaded = await client.post("/admin/backends/demo/adapters/load", json={"name": "law", "path": "/law"})
    assert (await client.post("/admin/backends/demo/adapters/unload?adapter=law")).json() == loaded.json() == told
    assert control.orders == ["load law /law into demo", "unload law from demo"]


@pytest.mark.parametrize("body", [{}, {"name": "law"}, {"name": "", "path": "x"}, {"name": "a", "path": "b", "c": 1}])
async def test_an_adapter_without_name_or_folder_is_refused(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answer = await client.post("/admin/backends/demo/adapters/load", json=body)

    assert answer.status_code == 400
    _error(answer)


async def test_a_model_is_probed_for_all_it_may_do_or_for_what_is_named(
    client: httpx.AsyncClient, control: StubControl
) -> None:
    whole = await client.post("/admin/models/demo/probe")
    await client.post("/admin/models/demo/probe?capability=tools&capability=chat&again=true")

    assert whole.json()["probes"][0]["capabilities"] == {"chat": "verified"}
    assert control.orders == [f"probe {','.join(CAPABILITIES)} False demo", "probe tools,chat True demo"]


async def test_a_probe_of_what_is_not_there_is_refused(client: httpx.AsyncClient) -> None:
    unknown = await client.post("/admin/models/nobody/probe")
    wrong = await client.post("/admin/models/demo/probe?capability=singing")

    assert (unknown.status_code, _error(unknown)["code"]) == (404, "model_not_found")
    assert wrong.status_code == 400


@pytest.mark.parametrize("order", ["start", "stop", "restart"])
async def test_an_order_is_taken_and_answered_at_once(
    client: httpx.AsyncClient, control: StubControl, order: str
) -> None:
    answer = await client.post(f"/admin/backends/demo/{order}")

    assert answer.status_code == 202
    assert answer.json()["name"] == "demo"
    assert control.orders == [f"{order} demo"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "start"), ("POST", "stop"), ("POST", "restart"), ("GET", "logs"), ("GET", "adapters")],
)
async def test_an_unknown_backend_is_a_404(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, f"/admin/backends/nobody/{path}")

    assert answer.status_code == 404
    assert _error(answer)["code"] == "backend_not_found"


async def test_a_reload_says_what_it_could_not_change(client: httpx.AsyncClient) -> None:
    answer = await client.post("/admin/reload")

    assert answer.json() == {"table_version": 4, "needs_restart": ["server.port"], "pending": []}


async def test_a_bad_file_is_answered_with_all_its_errors(client: httpx.AsyncClient, control: StubControl) -> None:
    control.errors = ["f.yaml: server.port: 'x' is no number", "f.yaml: models: is missing"]

    answer = await client.post("/admin/reload")

    assert answer.status_code == 422
    assert _error(answer)["message"].splitlines() == control.errors


async def test_an_unknown_route_is_a_404_in_our_shape(client: httpx.AsyncClient) -> None:
    answer = await client.get("/admin/nothing")

    assert answer.status_code == 404
    assert _error(answer)["code"] == "route_not_found"


async def test_a_wrong_method_is_a_405_that_says_which_are_right(client: httpx.AsyncClient) -> None:
    answer = await client.post("/health")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    assert _error(answer)["code"] == "method_not_allowed"


async def test_head_where_there_is_no_get_is_a_405(client: httpx.AsyncClient) -> None:
    answer = await client.head("/admin/reload")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "OPTIONS, POST"


async def test_options_says_what_a_path_takes(client: httpx.AsyncClient) -> None:
    known, unknown = await client.options("/admin/reload"), await client.options("/nothing")

    assert (known.status_code, known.headers["allow"]) == (204, "OPTIONS, POST")
    assert unknown.status_code == 404
    assert _error(unknown)


async def test_a_wrong_parameter_is_a_400_that_names_it(client: httpx.AsyncClient) -> None:
    answer = await client.get("/admin/backends/demo/logs?lines=many")

    assert answer.status_code == 400
    assert _error(answer)["param"] == "lines"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "The request has no body; a JSON object is expected."),
        (b"null", "The request's body must be a JSON object."),
        (b"{", "The request's body is not valid JSON."),
        (b"[]", "The request's body must be a JSON object."),
        (b'"text"', "The request's body must be a JSON object."),
        (b'{"name": "law"}', "path: Field required"),
    ],
)
async def test_a_wrong_body_is_told_in_a_sentence(client: httpx.AsyncClient, body: bytes, told: str) -> None:
    """Such an error began with ": " and had an empty `param`."""
    headers = {"content-type": "application/json"}
    answer = await client.post("/admin/backends/demo/adapters/load", content=body, headers=headers)

    assert answer.status_code == 400
    assert _error(answer)["message"] == told
    assert _error(answer)["param"] == ("path" if told.startswith("path") else None)


async def test_a_bug_is_a_500_without_its_traceback(client: httpx.AsyncClient) -> None:
    answer = await client.get("/admin/backends/broken/logs")

    assert answer.status_code == 500
    assert _error(answer)["message"] == "The gateway made a mistake; it is in its log."
    assert answer.headers["x-should-retry"] == "false"


async def test_the_description_is_of_the_whole_gateway(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()

    operations = {f"{method.upper()} {path}" for path, methods in described["paths"].items() for method in methods}
    assert operations >= {
        "POST /v1/chat/completions",
        "POST /v1/completions",
        "POST /v1/embeddings",
        "GET /v1/models",
        "GET /v1/models/{model}",
        "GET /livez",
        "GET /readyz",
        "GET /health",
        "GET /metrics",
        "GET /version",
        "GET /admin/status",
        "POST /admin/reload",
        "POST /admin/backends/{name}/restart",
    }
    assert described["info"]["version"] == VERSION
    assert "HTTPValidationError" not in str(described)


async def test_every_reference_in_the_description_leads_somewhere(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            here = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return here + [reference for value in node.values() for reference in references(value)]
        return [reference for value in node for reference in references(value)] if isinstance(node, list) else []

    references_there = set(references(described))
    assert "#/components/schemas/ErrorAnswer" in references_there
    for reference in references_there:
        assert reference.removeprefix("#/components/schemas/") in described["components"]["schemas"]


async def test_the_routes_of_the_relays_are_described_and_not_served(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/models")).status_code == 404


async def test_there_is_a_page_only_when_asked_for_and_it_loads_nothing(
    client: httpx.AsyncClient, control: StubControl, tmp_path: Path
) -> None:
    assert (await client.get("/docs")).status_code == 404

    async with serving(control, tmp_path / "docs.sock", docs=True) as documented:
        page = await documented.get("/docs")

    assert page.headers["content-type"].startswith("text/html")
    assert "/v1/chat/completions" in page.text
    assert "src=" not in page.text
    assert "://" not in page.text


def _table(*states: State, can_start: bool = False, draining: bool = False) -> Table:
    backends = {
        f"b{number}": Backend(f"b{number}", "remote", state, reason=f"why {number}", can_start=can_start)
        for number, state in enumerate(states)
    }
    public = PublicModel("chat", tuple(Target(name, "m") for name in backends))
    return Table(
        version=1,
        models={"chat": public},
        aliases={"gpt": "chat"},
        wildcards=(Wildcard("x/", "b0"),),
        backends=backends,
        draining=draining,
    )


@pytest.mark.parametrize(
    ("table", "state", "word"),
    [
        (_table(State.READY), State.READY, "ok"),
        (_table(State.FAILED, State.READY), State.READY, "ok"),
        (_table(State.FAILED, State.STARTING), State.STARTING, "starting"),
        (_table(State.FAILED), State.FAILED, "degraded"),
        (_table(State.STOPPED), State.STOPPED, "degraded"),
        (_table(State.STOPPED, can_start=True), State.STOPPED, "ok"),
        (_table(State.READY, draining=True), State.READY, "draining"),
        (_table(), State.FAILED, "degraded"),
    ],
)
def test_a_name_is_as_well_as_its_best_backend(table: Table, state: State, word: str) -> None:
    (model,) = models(table)

    assert model.state is state
    assert model.aliases == ("gpt",)
    assert overall(table) == word


def test_a_name_that_its_engine_does_not_list_is_not_served() -> None:
    backend = Backend("b0", "ollama", State.READY, models=("other",), is_strict=True)
    table = Table(
        version=1,
        models={"chat": PublicModel("chat", (Target("b0", "m"),))},
        aliases={},
        wildcards=(),
        backends={"b0": backend},
    )

    (model,) = models(table)

    assert (model.state, model.reason) == (State.FAILED, "b0 has no model 'm'")


@pytest.mark.parametrize("listed", ["law", "law:latest", "LAW:latest"])
def test_a_daemons_name_is_one_model_however_it_is_spelled(listed: str) -> None:
    row = Backend("b", "ollama", State.READY, models=("x", listed), is_strict=True)
    served = {"m": PublicModel("m", (Target("b", "law"),))}
    table = Table(version=1, models=served, aliases={}, wildcards=(), backends={"b": row})

    assert [model.state for model in models(table)] == [State.READY]
