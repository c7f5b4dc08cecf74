"""The verbs that ask a running gateway, over a real control socket with the real admin application behind it."""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn

from app.certificate.certificate import Certificate
from app.certificate.observation import Observation, Questions
from app.cli.admin_client import refusal
from app.cli.reload import progress_of
from app.cli.status import duration, ejection_note
from app.cli.tables import plain
from app.config.yaml_document import ConfigError
from app.supervisor.admin.app import create_admin
from app.supervisor.admin.plan_schemas import GpuAnswer, PlanAnswer, RelayPlan, SeatAnswer
from app.supervisor.admin.schemas import (
    AdapterAnswer,
    AdapterOrder,
    AdaptersAnswer,
    BackendAnswer,
    FailureAnswer,
    Health,
    LifeAnswer,
    Logs,
    Models,
    ProbeAnswer,
    ProbesAnswer,
    ProofAnswer,
    PublicModelAnswer,
    QuarantineAnswer,
    RelayProcesses,
    Reloaded,
    ReplacementAnswer,
    Status,
    StoreAnswer,
)
from app.supervisor.comparisons.shared_runs import Runs
from app.supervisor.comparisons.shared_votes import Votes
from app.supervisor.comparisons.votes import VoteStore
from app.supervisor.metrics.metrics_routes import BothPages
from app.supervisor.team.team import Team
from backends.endpoint import CAPABILITIES, State
from tests.rigs.audit import RememberedTeam
from tests.rigs.cli import run

DEMO = BackendAnswer(name="demo", kind="llama_cpp", state=State.READY, generation=2, restarts=1, since_s=75, pid=42)
DOWN = BackendAnswer(
    name="cloud", kind="remote", state=State.FAILED, is_managed=False, reason="refused [by] the server"
)
SMALL = PublicModelAnswer(name="small", state=State.READY, backends=("demo",), context_length=8192, aliases=("tiny",))
ILL = QuarantineAnswer(device="GPU-a", backend="demo", reason="GPU-a is in quarantine: 30 GB of it did not come back")
HEALTH = Health(status="ok", version="9.9", uptime_s=3700, models=(SMALL,), backends=(DEMO, DOWN), quarantined=(ILL,))


class FakeControl:
    """A supervisor's answers; `orders` is what it was told."""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.runs = Runs(Path("comparisons"), None, str)
        self.votes = Votes(VoteStore(Path("votes.jsonl"), time.time), None, time.time)
        self.team = cast("Team", RememberedTeam())
        self.proof: ProofAnswer | None = None
        self.bad: list[str] = []
        self.pending: tuple[str, ...] = ()
        self.replacement: ReplacementAnswer | None = None

    def health(self) -> Health:
        return HEALTH

    def _health(self) -> Health:
        if self.replacement is None:
            return HEALTH
        stuck = DEMO.model_copy(update={"replacement": self.replacement})
        return HEALTH.model_copy(update={"backends": (stuck, DOWN)})

    def models(self) -> Models:
        return Models(models=(SMALL,), wildcards=("ollama/*",))

    def status(self) -> Status:
        relays = RelayProcesses(pids=(7, 8), connected=(7, 8), restarts=3)
        return Status(
            health=self._health(),
            pid=6,
            address="http://127.0.0.1:8000",
            config=None,
            state_folder="/s",
            table_version=5,
            leases=4,
            relays=relays,
        )

    async def plan(self) -> PlanAnswer:
        seats = (
            SeatAnswer(backend="demo", fits=True, is_possible=True, memory_gb=1.5, measured_gb=1.25, kv_tokens=2048),
            SeatAnswer(backend="huge", fits=False, is_possible=False, memory_gb=90.0, notes=("it never fits",)),
        )
        gpu = GpuAnswer(uuid="GPU-a", index=0, memory_gb=80, quarantine=ILL.reason)
        return PlanAnswer(
            memory_gb=8.0, relays=RelayPlan(count=3, is_auto=True, cores=8, engine_cores=5), gpus=(gpu,), seats=seats
        )

    @property
    def metrics(self) -> BothPages:
        raise NotImplementedError("no verb reads them")

    async def probe(self, model: str, capabilities: Collection[str], *, again: bool) -> ProbesAnswer:
        self.orders += [f"probe {model} {capability} {again}" for capability in capabilities]
        told = ProbeAnswer(backend="demo", version="1.2", context_length=8192, capabilities={"chat": "verified"})
        return ProbesAnswer(model={"small": "small"}[model], probes=(told,))

    async def observe(self, model: str, questions: Questions) -> Observation:
        return Observation({"small": "small"}[model], "demo", "llama_cpp", "the embedded engine")

    async def keep_certificate(self, model: str, certificate: Certificate) -> Certificate:
        self.orders.append(f"keep {model} {certificate.summary}")
        return certificate

    def adapters(self, backend: str) -> AdaptersAnswer:
        law = AdapterAnswer(name="law", path="/law", reason="it is broken", proof=self.proof)
        return AdaptersAnswer(backend=backend, adapters={"demo": (law,)}[backend])

    async def load_adapter(self, backend: str, order: AdapterOrder) -> AdaptersAnswer:
        unproved = "" if order.proof == "on" else "unproved "
        self.orders.append(f"load {unproved}{order.name} {order.path} {backend}")
        return self.adapters(backend)

    async def unload_adapter(self, backend: str, name: str) -> AdaptersAnswer:
        self.orders.append(f"unload {name} {backend}")
        return self.adapters(backend)

    def logs(self, backend: str, lines: int, life: int | None = None) -> Logs:
        written = {"demo": ("one", "two", "three"), "cloud": ()}[backend]
        if backend == "cloud":
            return Logs(backend=backend, lines=written)
        if life == 3:
            return Logs(backend=backend, life=3, lines=("last words",))
        before = LifeAnswer(life=3, reason="it was ended by signal 11", ended_ago_s=65)
        return Logs(backend=backend, life=4, lines=written[-lines:], lives=(before, LifeAnswer(life=4)))

    async def start(self, backend: str) -> BackendAnswer:
        return self._order("start", backend)

    async def stop(self, backend: str) -> BackendAnswer:
        return self._order("stop", backend)

    async def restart(self, backend: str) -> BackendAnswer:
        return self._order("restart", backend)

    async def reload(self) -> Reloaded:
        if self.bad:
            raise ConfigError(self.bad)
        return Reloaded(table_version=6, needs_restart=("server.port",), pending=self.pending)

    def _order(self, verb: str, backend: str) -> BackendAnswer:
        answer = {"demo": DEMO, "cloud": DOWN}[backend]
        self.orders.append(f"{verb} {backend}")
        return answer


@pytest.fixture
def folder() -> Iterator[Path]:
    # Shorter than pytest's own: a Unix socket's name must fit.
    with tempfile.TemporaryDirectory(prefix="mp-") as name:
        yield Path(name)


@pytest.fixture
def control(folder: Path) -> Iterator[FakeControl]:
    made = FakeControl()
    (folder / "state").mkdir()
    config = uvicorn.Config(
        create_admin(made, "9.9"), uds=str(folder / "state" / "control.sock"), log_config=None, lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        with contextlib.suppress(RuntimeError):
            thread.join(0.01)
    yield made
    server.should_exit = True
    thread.join()


def test_models_are_listed_with_their_states(folder: Path, control: FakeControl) -> None:
    rows = [line.split() for line in run(folder, "models").out.splitlines()]

    assert rows[0] == ["model", "state", "backends", "context", "aliases", "note"]
    assert rows[1] == ["small", "ready", "demo", "8192", "tiny"]
    assert rows[2][0] == "ollama/*"


def test_what_ended_it_last_stays_beside_the_restarts(
    folder: Path, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = FailureAnswer(life=1, reason="it was ended by signal 11", ago_s=65)
    health = HEALTH.model_copy(update={"backends": (DEMO.model_copy(update={"last_failure": last}),)})
    two = {"serving": 1, "engines": 2, "restarts": 3, "last_failure": last}
    monkeypatch.setattr("tests.unit.cli.test_admin_client.HEALTH", health)
    monkeypatch.setattr("tests.unit.cli.test_admin_client.SMALL", SMALL.model_copy(update=two))

    status, models = run(folder, "status").out, run(folder, "models").out.splitlines()

    assert "ended 1m 5s ago (start 1): it was ended by signal 11" in status
    assert models[0].split()[:5] == ["model", "state", "serving", "restarts", "backends"]
    assert "1 of 2" in models[1]
    assert "ended 1m 5s ago (start 1): it was ended by signal 11" in models[1]


def test_models_are_listed_for_programs(folder: Path, control: FakeControl) -> None:
    listed = json.loads(run(folder, "models", "--json").out)

    assert listed["models"][0]["name"] == "small"
    assert listed["wildcards"] == ["ollama/*"]


def test_models_are_probed_one_capability_after_the_other(folder: Path, control: FakeControl) -> None:
    ended = run(folder, "probe")

    assert [line.split() for line in ended.out.splitlines()] == [
        ["model", "backend", "version", "context", "chat"],
        ["small", "demo", "1.2", "8192", "verified"],
    ]
    assert ended.err.splitlines() == [f"small: {capability} …" for capability in CAPABILITIES]
    assert control.orders == [f"probe small {capability} False" for capability in CAPABILITIES]


def test_one_model_is_probed_again_for_programs(folder: Path, control: FakeControl) -> None:
    told = json.loads(run(folder, "probe", "small", "--again", "--json").out)

    assert told[0]["probes"][0]["capabilities"] == {"chat": "verified"}
    assert control.orders[0] == "probe small chat True"


def test_the_status_shows_processes_and_backends_with_their_reasons(folder: Path, control: FakeControl) -> None:
    said = run(folder, "status").out

    assert "modelport 9.9: ok, at http://127.0.0.1:8000, up 1h 1m" in said
    assert "supervisor 6, relays 7, 8 (3 restarts)" in said
    assert "configuration none: the defaults, state folder /s" in said
    assert "demo     llama_cpp  ready   1m 15s" in said
    assert "refused [by] the server" in said
    assert run(folder, "status").err == "GPU-a is in quarantine: 30 GB of it did not come back\n"
    assert json.loads(run(folder, "status", "--json").out)["pid"] == 6


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "store postgresql, db:5432/modelport"),
        ({"gateways": 3, "silent": 1}, "store postgresql, db:5432/modelport, 3 gateways (1 silent)"),
        (
            {"is_up": False, "down_s": 65.0, "reason": "connection refused"},
            "store postgresql, db:5432/modelport, away for 1m 5s: connection refused",
        ),
    ],
)
def test_the_status_says_where_keys_and_usage_are_kept(
    folder: Path, control: FakeControl, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], line: str
) -> None:
    store = StoreAnswer(kind="postgresql", place="db:5432/modelport", is_up=True, gateway="a1", gateways=1)
    health = HEALTH.model_copy(update={"store": store.model_copy(update=changes)})
    monkeypatch.setattr("tests.unit.cli.test_admin_client.HEALTH", health)

    assert line in run(folder, "status").out.splitlines()


def test_the_last_lines_of_an_engine_are_printed(folder: Path, control: FakeControl) -> None:
    assert run(folder, "logs", "demo", "-n", "2").out == "two\nthree\n"
    assert json.loads(run(folder, "logs", "demo", "--json").out) == {
        "backend": "demo",
        "life": 4,
        "lines": ["one", "two", "three"],
        "printed": 0,
        "unfinished": False,
        "lives": [
            {"life": 3, "reason": "it was ended by signal 11", "ended_ago_s": 65.0},
            {"life": 4, "reason": None, "ended_ago_s": None},
        ],
    }


def test_the_last_lines_of_an_earlier_life_are_printed_and_why_it_ended(folder: Path, control: FakeControl) -> None:
    now, before = run(folder, "logs", "demo"), run(folder, "logs", "demo", "--life", "3")

    assert now.err == "start 3 ended 1m 5s ago: it was ended by signal 11 (--life 3)\n"
    assert before.out == "last words\n"


def test_why_an_engine_of_somebody_else_shows_no_lines_is_said(folder: Path, control: FakeControl) -> None:
    ended = run(folder, "logs", "cloud")

    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "cloud: the gateway does not run it, so its log is elsewhere.\n"


def test_an_unknown_backend_is_said_so(folder: Path, control: FakeControl) -> None:
    ended = run(folder, "logs", "no/such")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err.strip()


def test_a_backend_is_started_stopped_and_restarted(folder: Path, control: FakeControl) -> None:
    said = [run(folder, verb, name).out for verb, name in (("start", "demo"), ("stop", "cloud"), ("restart", "demo"))]

    assert control.orders == ["start demo", "stop cloud", "restart demo"]
    assert said == ["demo: ready\n", "cloud: failed: refused [by] the server\n", "demo: ready\n"]
    assert json.loads(run(folder, "stop", "demo", "--json").out)["pid"] == 42


def test_a_reload_says_what_needs_a_restart(folder: Path, control: FakeControl) -> None:
    ended = run(folder, "reload")

    assert (ended.code, ended.out) == (0, "The new configuration is in force (table 6).\n")
    assert ended.err == "Only a restart changes these: server.port\n"
    assert json.loads(run(folder, "reload", "--json").out)["table_version"] == 6


def test_a_reload_does_not_say_that_all_is_in_force_when_it_is_not(folder: Path, control: FakeControl) -> None:
    control.pending = ("demo", "cloud")

    ended = run(folder, "reload")

    assert ended.code == 0
    assert "is read (table 6)" in ended.out
    assert "Not in force yet: demo, cloud." in ended.out
    assert "is in force" not in ended.out


def test_a_reload_that_waits_ends_when_all_is_in_force_or_one_does_not_start(
    folder: Path, control: FakeControl
) -> None:
    control.pending = ("demo",)
    done = run(folder, "reload", "--wait")
    assert (done.code, "is in force (table 6)" in done.out) == (0, True)

    control.replacement = ReplacementAnswer(state="failed", reason="its new configuration does not start: too long")
    failed = run(folder, "reload", "--wait")

    assert failed.code == 1
    assert failed.err.splitlines()[-1] == "demo: its new configuration does not start: too long"
    assert json.loads(run(folder, "reload", "--wait", "--json").out)["failed"] != []
    assert "does not start: too long" in run(folder, "status").out


def test_status_says_who_is_passed_over_and_when_it_is_tried_again() -> None:
    ejected = {"model": "m", "reason": "failures", "evidence": "5 requests in a row failed (engine_failed)"}
    times = {"since_s": 70.0, "tried_in_s": 5.2}

    assert ejection_note([]) == ""
    assert ejection_note([{**ejected, **times}]) == (
        "requests for m pass it over for 1m 10s: 5 requests in a row failed (engine_failed); it is tried again in 5s"
    )


def backend(name: str, state: str, is_managed: bool = True, replacement: object = None) -> dict[str, object]:
    return {"name": name, "state": state, "reason": "why", "is_managed": is_managed, "replacement": replacement}


def test_what_is_on_its_way_and_what_has_failed_are_told_apart() -> None:
    backends = [
        backend("a", "ready"),
        backend("b", "starting"),
        backend("c", "ready", replacement={"state": "pending", "reason": "soon"}),
        backend("d", "ready", replacement={"state": "failed", "reason": "no"}),
        backend("e", "failed"),
        backend("f", "failed", is_managed=False),
        backend("not asked", "failed"),
    ]

    assert progress_of(backends, list("abcdef")) == (["b", "c"], ["d: no", "e: why"])


def test_a_reload_of_a_bad_file_shows_its_errors_and_ends_with_2(folder: Path, control: FakeControl) -> None:
    control.bad = ["f: server.prot: 'prot' is not a key here", "f: models: is missing"]

    ended = run(folder, "reload")

    assert (ended.code, ended.err.splitlines()) == (2, control.bad)


@pytest.mark.parametrize("verb", ["models", "probe", "probe x", "status", "reload", "logs x", "start x"])
def test_where_no_gateway_runs_it_is_said_and_the_code_is_3(folder: Path, verb: str) -> None:
    ended = run(folder, *verb.split())

    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith(f"No gateway is running with the state folder {folder}/state")


def test_the_state_folder_can_be_named(folder: Path, control: FakeControl) -> None:
    ended = run(folder, "models", "--state", str(folder / "state"), MODELPORT_STATE="/nowhere")

    assert ended.code == 0


def test_a_socket_that_nobody_listens_on_is_no_gateway(folder: Path) -> None:
    (folder / "state").mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "state" / "control.sock"))

    assert run(folder, "status").code == 3


@pytest.mark.parametrize(
    ("body", "lines", "code"),
    [
        ('{"error": {"message": "no", "code": "x"}}', ["no"], 1),
        ('{"error": {"message": "a\\nb", "code": "config_invalid"}}', ["a", "b"], 2),
        ("<html>", ["The gateway answered 500."], 1),
        ("[]", ["The gateway answered 500."], 1),
    ],
)
def test_a_refusal_is_shown_by_its_message(body: str, lines: list[str], code: int) -> None:
    assert refusal(500, body) == (lines, code)


def test_a_table_in_a_pipe_is_whole_and_has_no_blanks_at_its_ends() -> None:
    assert plain([["name", "note"], ["x" * 90, ""], ["y", "why"]]).splitlines() == [
        f"name{' ' * 86}  note",
        "x" * 90,
        f"y{' ' * 89}  why",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0s"), (59.9, "59s"), (60, "1m"), (75, "1m 15s"), (3600, "1h"), (3700, "1h 1m"), (200_000, "2d 7h")],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_adapters_are_listed_loaded_and_unloaded(folder: Path, control: FakeControl) -> None:
    listed = run(folder, "adapters", "list", "demo")
    loaded = run(folder, "adapters", "load", "demo", "law", "law-folder")
    unloaded = run(folder, "adapters", "unload", "demo", "law")

    assert (listed.code, loaded.code, unloaded.code) == (0, 0, 0)
    assert listed.out.splitlines() == ["adapter  folder  note", "law      /law    it is broken"]
    assert loaded.out == unloaded.out == listed.out
    assert control.orders == [f"load law {folder.resolve() / 'law-folder'} demo", "unload law demo"]
    assert run(folder, "adapters", "load", "demo", "law", "/law", "--no-proof").code == 0
    assert control.orders[-1] == "load unproved law /law demo"
    assert run(folder, "adapters", "list", "nobody").code == 1
    assert json.loads(run(folder, "adapters", "list", "demo", "--json").out)["backend"] == "demo"


@pytest.mark.parametrize(
    ("proof", "told"),
    [
        (ProofAnswer(verdict="proved", seconds=0.17, effect=0.2, noise=0.0), "proved in 0.2 s"),
        (ProofAnswer(verdict="unclear", seconds=0.1, why_not="it gives none"), "unclear"),
    ],
)
def test_how_an_adapter_proved_itself_is_told(
    folder: Path, control: FakeControl, proof: ProofAnswer, told: str
) -> None:
    control.proof = proof

    listed = run(folder, "adapters", "list", "demo")

    assert told in listed.out


def test_the_plan_of_a_running_gateway_has_what_was_measured(folder: Path, control: FakeControl) -> None:
    ended = run(folder, "plan")

    assert ended.code == 1, "one can never start"
    assert ended.out.splitlines()[:2] == [
        "memory for engines 8.0 GB, GPUs 0 (GPU-a, 80 GB, in quarantine)",
        "relays 3 (auto); of 8 cores engines keep 5 busy",
    ]
    assert "1.25 GB" in ended.out
    assert "2048 tokens" in ended.out
    assert ended.err == "huge: it never fits\n"
