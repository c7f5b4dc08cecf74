"""The checks, one fact at a time."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app import __version__
from app.cli.doctor import as_document, lines
from app.config.load import loads
from app.doctor.checks.checks import CHECKS, examine
from app.doctor.checks.variables import unread
from app.doctor.diagnosis import Diagnosis
from app.doctor.facts import (
    AttachedFacts,
    CollectorFacts,
    ConfigFacts,
    ContainerFacts,
    DiskFacts,
    FolderFacts,
    GatewayFacts,
    GpuFacts,
    HubFacts,
    MachineFacts,
    PortFacts,
    ProgramFacts,
    StoreFacts,
    ToolFacts,
)
from app.doctor.looking.engines import inspections
from app.store import schema
from app.store.checkup import Checkup
from app.supervisor.admin.plan_schemas import PlanAnswer, RelayPlan, SeatAnswer
from tests import ROOT
from tests.rigs.pages import page

RELAYS = RelayPlan(count=1, is_auto=False, cores=2, engine_cores=0)
NOW = 1_800_000_000.0
STATE = Path("/var/lib/modelport")
YAML = """
server: {host: HOST, max_connections: 4000}
backends:
  demo: {kind: llama_cpp, model: /models/demo.gguf}
  gpu: {kind: vllm, model: organisation/model, tensor_parallel_size: 2, devices: [0, 1]}
models:
  demo: {backend: demo}
  big: {backend: gpu}
keys:
  - {name: office, sha256: "SHA", expires: "2027-02-01"}
"""


def config(text: str = YAML, host: str = "127.0.0.1", **facts: Any) -> ConfigFacts:
    loaded = loads(text.replace("HOST", host).replace("SHA", "0" * 64), {}, source="modelport.yaml")
    return ConfigFacts(loaded, Path("modelport.yaml"), **facts)


def good(**changes: Any) -> MachineFacts:
    """A machine with two GPUs on which all is well, but for these."""
    configured = changes.pop("config", config())
    facts = MachineFacts(
        env={"PATH": "/usr/bin", "HF_HOME": "/models", "API_KEY": "x", "MODELPORT_STATE": str(STATE)},
        python=(3, 12, 1),
        now=NOW,
        built_at=NOW - 1000,
        config=configured,
        inspections=tuple(inspections(configured.config)),
        libraries={"libgomp.so.1": True, "libnuma.so.1": True},
        processor=frozenset({"sse2", "avx2"}),
        open_files=1_048_576,
        shm_bytes=16 << 30,
        gpu=GpuFacts(True, "570.1", "12.8", ((0, "H100", 80 << 30, 1 << 30), (1, "H100", 80 << 30, 1 << 30))),
        state=FolderFacts(STATE, exists=True, is_folder=True, has_content=True, has_lock=True),
        disks=(DiskFacts("state folder", STATE, 100 << 30, 200 << 30, 1_000_000, 1),),
        tools=ToolFacts(STATE / "tools", whole=("convert",)),
        ports=(PortFacts("server.port", "127.0.0.1", 8000),),
        programs=(
            ProgramFacts("llama.cpp", "xllamacpp", "demo", "xllamacpp", version="1"),
            ProgramFacts("vLLM", "vllm", "gpu", "/opt/vllm/bin/vllm", version="0.32.0"),
        ),
        attached=(),
        hub=(HubFacts("gpu", "organisation/model", is_here=True),),
    )
    return dataclasses.replace(facts, **changes)


def said(facts: MachineFacts) -> list[tuple[str, str]]:
    """What is not well: (check, severity)."""
    return [(each.check, each.severity) for each in examine(facts) if each.severity != "ok"]


def the_line(facts: MachineFacts) -> str:
    (line,) = [each.line for each in examine(facts) if each.severity != "ok"]
    return line


def test_on_a_good_machine_nothing_is_wrong_and_each_check_says_so() -> None:
    examined = examine(good())

    assert [each.line for each in examined if each.severity != "ok"] == []
    assert {each.check for each in examined} == set(CHECKS)


def test_the_page_has_a_heading_for_each_check_and_no_other() -> None:
    assert page("docs/doctor.md").coded == set(CHECKS)


def plan(note: str) -> PlanAnswer:
    """Of one engine that can never start, for this reason."""
    seat = SeatAnswer(backend="gpu", fits=False, is_possible=False, notes=(note, "more"))
    return PlanAnswer(memory_gb=16.0, relays=RELAYS, gpus=(), seats=(seat,))


DEMO_ONLY = YAML.replace(
    "  gpu: {kind: vllm, model: organisation/model, tensor_parallel_size: 2, devices: [0, 1]}\n", ""
).replace("  big: {backend: gpu}\n", "")
NO_GPU = GpuFacts(False, trouble="NVML Shared Library Not Found")
LATE_KEY = YAML.replace("2027-02-01", "2027-01-20")
DEAD_KEY = YAML.replace("2027-02-01", "2026-01-01")
OPEN = YAML.partition("keys:")[0]

# The machine → the check that speaks, how bad it is, and words of its line.
TROUBLES: Mapping[str, tuple[dict[str, Any], str, str, str]] = {
    "old Python": ({"python": (3, 10, 4)}, "python", "error", "Python 3.10.4. Install Python 3.11"),
    "Windows": ({"system": "Windows AMD64"}, "python", "warn", "Run the gateway on Linux"),
    "no AVX2": ({"processor": frozenset({"sse2"})}, "processor", "error", "no AVX2, and demo computes with it"),
    "no libgomp": ({"libraries": {"libgomp.so.1": False}}, "libraries", "error", "apt-get install libgomp1"),
    "the year 1970": ({"now": 1000.0, "config": config(DEMO_ONLY)}, "clock", "error", "it is 1970-01-01"),
    "a clock that jumps": ({"jumped_s": -30.0}, "clock", "warn", "it was set by -30 s"),
    "half a core": ({"container": ContainerFacts(None, 0.5, True)}, "container", "warn", "0.5 of a core"),
    "few files": ({"open_files": 1024}, "open-files", "warn", "480 connections per relay instead of 4000"),
    "small shm": ({"shm_bytes": 64 << 20}, "shared-memory", "error", "the 2 workers of gpu need more of it"),
    "little shm": ({"shm_bytes": 512 << 20}, "shared-memory", "warn", "little for the 2 workers of gpu"),
    "a bad file": (
        {"config": ConfigFacts(None, STATE, ("modelport.yaml: server.prot: 'prot' is not a key here",))},
        "config",
        "error",
        "'prot' is not a key here. Correct it",
    ),
    "a file that is missing": (
        {"config": config(warnings=(("backends.demo.model", "'x.gguf' is not a file here"),))},
        "config",
        "error",
        "backends.demo.model: 'x.gguf' is not a file here",
    ),
    "an unused backend": (
        {"config": config(warnings=(("backends.demo", "no model uses it"),))},
        "config",
        "warn",
        "no model uses it",
    ),
    "a running gateway without a key": (
        {
            "config": config(OPEN, host="0.0.0.0"),
            "gateway": GatewayFacts(7, __version__, "ok", "http://127.0.0.1:8000"),
        },
        "keys",
        "warn",
        "a gateway runs there without a key",
    ),
    "no key": ({"config": config(OPEN, host="0.0.0.0")}, "keys", "error", "there is no key"),
    "no key, and a store for some": (
        {"config": config(f"store: postgresql://db/m\n{OPEN}", host="0.0.0.0")},
        "keys",
        "warn",
        "there is no key yet: the gateway lets nobody in",
    ),
    "no key, and metrics that everybody reads": (
        {"config": config(OPEN.replace("{host: HOST", "{metrics_host: 0.0.0.0, metrics_port: 9464"))},
        "keys",
        "error",
        "server.metrics_host '0.0.0.0' is reachable from other machines, and there is no key",
    ),
    "a key that ends": ({"config": config(LATE_KEY)}, "keys", "warn", "'office' ends in 5 days"),
    "a key that has ended": ({"config": config(DEAD_KEY)}, "keys", "error", "every key has ended (office)"),
    "a proxy": ({"env": {"HTTP_PROXY": "http://secret@proxy"}}, "proxy", "warn", "NO_PROXY=localhost,127.0.0.1"),
    "a taken port": (
        {"ports": (PortFacts("server.port", "127.0.0.1", 8000, "127.0.0.1:8000 is in use", users=((7, "nginx"),)),)},
        "port",
        "error",
        "127.0.0.1:8000 is in use: nginx (process 7). End that program, or choose another server.port, or --port.",
    ),
    "a port that only root may have": (
        {
            "ports": (
                PortFacts(
                    "server.metrics_port", "::", 80, "80 needs more rights", "choose a port from 1024 on: --port"
                ),
            )
        },
        "port",
        "error",
        "80 needs more rights. Choose a port from 1024 on (server.metrics_port).",
    ),
    "no collector": (
        {"collector": CollectorFacts("tempo:4318", "Connection refused")},
        "traces",
        "warn",
        "the collector at tempo:4318 cannot be reached (Connection refused): traces are lost",
    ),
    "a lost GPU": (
        {"gpu": GpuFacts(True, "570", "12.8", ((0, "H100", 80 << 30, 0),), ((1, "GPU is lost"),))},
        "gpu",
        "warn",
        "GPU 1 does not answer: GPU is lost. Look into the kernel's log",
    ),
    "somebody else's folder": (
        {"state": FolderFacts(STATE, exists=True, is_folder=True, owner=1000)},
        "state-folder",
        "error",
        "belongs to another user (uid 1000",
    ),
    "an open folder": (
        {"state": FolderFacts(STATE, exists=True, is_folder=True, mode=0o755, has_content=True, has_lock=True)},
        "state-folder",
        "error",
        "chmod 700 /var/lib/modelport",
    ),
    "a folder of other things": (
        {"state": FolderFacts(STATE, exists=True, is_folder=True, has_content=True)},
        "state-folder",
        "error",
        "holds other files",
    ),
    "a folder that cannot be made": (
        {"state": FolderFacts(STATE, can_be_made=False)},
        "state-folder",
        "error",
        "cannot be made",
    ),
    "a file as folder": ({"state": FolderFacts(STATE, exists=True)}, "state-folder", "error", "is not a folder"),
    "a folder that cannot be written": (
        {"state": FolderFacts(STATE, exists=True, is_folder=True, mode=0o500)},
        "state-folder",
        "error",
        "closed for writing",
    ),
    "no state folder": ({"state": None}, "state-folder", "error", "it is not known"),
    "a full disk": ({"disks": (DiskFacts("state folder", STATE, 1000, 1 << 30),)}, "disk", "error", "1.0 kB of 1.1 GB"),
    "no inodes": ({"disks": (DiskFacts("state folder", STATE, 1 << 40, 1 << 41, 7),)}, "disk", "error", "than 7 files"),
    "little room": ({"disks": (DiskFacts("state folder", STATE, 9 * 10**8, 1 << 41),)}, "disk", "warn", "Make room"),
    "a disk that fails": (
        {"disks": (DiskFacts("state folder", STATE, trouble="Input/output error"),)},
        "disk",
        "warn",
        "Input/output error",
    ),
    "a broken tool": ({"tools": ToolFacts(STATE, broken=("convert",))}, "tools", "warn", "`modelport clean`"),
    "half a tool": ({"tools": ToolFacts(STATE, left=("convert",))}, "tools", "warn", "unfinished environment"),
    "a driver that does not match": (
        {"gpu": GpuFacts(True, trouble="Driver/library version mismatch")},
        "gpu",
        "warn",
        "Driver/library version mismatch",
    ),
    "no GPU": ({"gpu": NO_GPU}, "gpu", "error", "no GPU is to be seen, and gpu names `devices`"),
    "hidden GPUs": (
        {"gpu": GpuFacts(True, "570", "12.8", ((0, "H100", 80 << 30, 0), (1, "H100", 80 << 30, 0)), hidden=1)},
        "gpu",
        "warn",
        "CUDA_VISIBLE_DEVICES hides 1",
    ),
    "no vLLM": (
        {"programs": (ProgramFacts("vLLM", "vllm", "gpu"),)},
        "programs",
        "error",
        "backends.gpu: 'vllm' is not there. Install vLLM in an environment of its own",
    ),
    "a file that is no program": (
        {"programs": (ProgramFacts("vLLM", "/opt/vllm", "gpu", is_file=True),)},
        "programs",
        "error",
        "is not a program that can be run",
    ),
    "a program that fails": (
        {"programs": (ProgramFacts("vLLM", "vllm", "gpu", "/bin/vllm", trouble="exit code 1: No module named vllm"),)},
        "programs",
        "error",
        "/bin/vllm does not work: exit code 1: No module named vllm. Install vLLM anew",
    ),
    "a program that says nothing": (
        {
            "programs": (
                ProgramFacts(
                    "vLLM", "vllm", "gpu", "/bin/vllm", trouble="it printed no version within 25 s", is_mute=True
                ),
            )
        },
        "programs",
        "warn",
        "the version of /bin/vllm is not known: it printed no version within 25 s. Where it should be vLLM",
    ),
    "old vLLM": (
        {
            "programs": (
                ProgramFacts(
                    "vLLM", "vllm", "gpu", "/bin/vllm", version="0.11", flaw="vLLM 0.11 is bad. Install 0.32."
                ),
            )
        },
        "programs",
        "warn",
        "backends.gpu: vLLM 0.11 is bad. Install 0.32.",
    ),
    "a library that does not load": (
        {"programs": (ProgramFacts("llama.cpp", "xllamacpp", "demo", trouble="ImportError: libgomp.so.1"),)},
        "programs",
        "error",
        "cannot be loaded: ImportError: libgomp.so.1",
    ),
    "a dead daemon": (
        {"attached": (AttachedFacts("o", "http://127.0.0.1:11434", reason="connection refused"),)},
        "attached",
        "error",
        "nothing serves at http://127.0.0.1:11434: connection refused. Start it",
    ),
    "an old daemon": (
        {
            "attached": (
                AttachedFacts("o", "http://x", is_up=True, flaw="Ollama 0.1 has holes: A, B. Install 0.35.0 or newer."),
            )
        },
        "attached",
        "warn",
        "backends.o: Ollama 0.1 has holes: A, B. Install 0.35.0 or newer.",
    ),
    "a model that may not come": (
        {"hub": (HubFacts("gpu", "a/b", is_offline=True),)},
        "hub",
        "error",
        "HF_HUB_OFFLINE forbids its download",
    ),
    "an engine that never fits": (
        {"plan": plan("it never fits: 9 GB of memory; raise server.memory_gb")},
        "memory",
        "error",
        "backends.gpu: it never fits: 9 GB of memory. Raise server.memory_gb.",
    ),
    "an engine that would not start": (
        {"plan": plan("vLLM would not start: it needs 23 GB, and 22 are free now: set kv_cache_memory_bytes")},
        "memory",
        "error",
        "it needs 23 GB, and 22 are free now. Set kv_cache_memory_bytes.",
    ),
    "a failed backend": (
        {"gateway": GatewayFacts(7, __version__, "degraded", "http://127.0.0.1:8000", failed=(("gpu", "no memory"),))},
        "gateway",
        "error",
        "gpu does not run: no memory. `modelport logs gpu`",
    ),
    "a gateway that does not answer": (
        {"gateway": GatewayFacts(7, trouble="ReadTimeout")},
        "gateway",
        "error",
        "process 7 holds the state folder and does not answer (ReadTimeout)",
    ),
    "another version": (
        {"gateway": GatewayFacts(7, "0.0.9", "ok", "http://127.0.0.1:8000")},
        "gateway",
        "warn",
        "process 7 is version 0.0.9",
    ),
    "a degraded gateway": (
        {"gateway": GatewayFacts(7, __version__, "degraded", "http://127.0.0.1:8000")},
        "gateway",
        "warn",
        "it is degraded",
    ),
    "what hangs": ({"late": (("gpu", "NVML"),)}, "gpu", "warn", "NVML could not be looked at in time"),
    "a variable of an engine": (
        {"env": {"VLLM_ATTENTION_BACKEND": "X"}},
        "environment",
        "warn",
        "Write it under `env` of backends.gpu (`VLLM_ATTENTION_BACKEND: ${VLLM_ATTENTION_BACKEND}`)",
    ),
    "a variable without the underscore": (
        {"env": {"MODELPORTSTATE": "X"}},
        "environment",
        "warn",
        "nearest: MODELPORT_STATE",
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_one_trouble_is_named_by_one_line_with_what_to_do(trouble: str) -> None:
    changes, check, severity, words = TROUBLES[trouble]
    facts = good(**changes)

    assert said(facts) == [(check, severity)]
    assert words in the_line(facts)
    assert all(each.fix.endswith((".", "`", ")", "/modelport")) for each in examine(facts) if each.severity != "ok")


def test_keys_of_the_store_are_as_good_as_those_of_the_file() -> None:
    store = StoreFacts("store.db", report=Checkup(schema=schema.VERSION, rows={"keys": 3}))
    facts = good(config=config(OPEN, host="0.0.0.0"), store=store)

    assert [(each.severity, each.text) for each in examine(facts) if each.check == "keys"] == [
        ("ok", "keys: 0, and 3 in the store")
    ]


def test_the_port_and_the_folder_of_the_running_gateway_are_no_trouble() -> None:
    facts = good(
        ports=(PortFacts("server.port", "127.0.0.1", 8000, "it is in use"),),
        state=FolderFacts(STATE, exists=True, is_folder=True, has_content=True, has_lock=True, holder="7"),
        gateway=GatewayFacts(7, __version__, "ok", "http://127.0.0.1:8000"),
    )

    assert said(facts) == []


def test_a_machine_with_accelerators_of_another_maker_is_no_trouble() -> None:
    configured = config(DEMO_ONLY)

    assert said(good(config=configured, gpu=GpuFacts(has_others=True, trouble="NVML not found"))) == []


def test_engines_that_take_turns_are_no_trouble_and_small_shared_memory_is_told_once() -> None:
    turns = SeatAnswer(backend="gpu", fits=False, is_possible=True, notes=("no room beside demo: they take turns",))
    shared = SeatAnswer(backend="gpu", fits=False, is_possible=False, notes=("its workers need /dev/shm",))

    assert said(good(plan=PlanAnswer(memory_gb=16.0, relays=RELAYS, gpus=(), seats=(turns,)))) == []
    assert said(good(plan=PlanAnswer(memory_gb=16.0, relays=RELAYS, gpus=(), seats=(shared,)), shm_bytes=1)) == [
        ("shared-memory", "error")
    ]


def test_the_demo_without_a_daemon_and_without_a_gpu_is_no_trouble() -> None:
    configured = config(DEMO_ONLY)
    facts = good(
        config=configured,
        inspections=tuple(inspections(configured.config)),
        gpu=NO_GPU,
        attached=(AttachedFacts("ollama", "http://127.0.0.1:11434", is_implied=True, reason="connection refused"),),
        programs=(ProgramFacts("vLLM", "vllm"),),
        hub=(),
    )

    assert said(facts) == []


VARIABLES = {
    "MODELPORT_STAT": "MODELPORT_STATE",
    "API_PROT": "API_PORT",
    "FASTAPI_ROOTPATH": "FASTAPI_ROOT_PATH",
    "OLLAMA_HOTS": "OLLAMA_HOST",
    "OTEL_EXPORTER_OTLP_ENPOINT": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "MODELPORT_QQQQQQQQQQ": None,
}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_that_nothing_reads_is_told_with_the_nearest(name: str) -> None:
    (one,) = unread({name: "x"}, (), ())

    assert (one.name, one.nearest) == (name, VARIABLES[name])


def test_a_variable_that_is_read_is_not_told() -> None:
    env = {
        "API_KEY": "k",
        "api_port": "1",
        "API_BASE": "somebody else's",
        "OTEL_METRICS_EXPORTER": "none",
        "OLLAMA_HOST": "x",
        "OLLAMA_MODELS": "y",
        "MODELPORT_VLLM": "z",
    }

    assert list(unread({**env, "API_OWN": "named"}, ("API_OWN",), ())) == []


def test_every_variable_that_the_example_names_is_known() -> None:
    names = re.findall(r"(?m)^(?:# )?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text())
    looked_at = tuple(inspections(config().config))

    told = [each.name for each in unread(dict.fromkeys(names, "x"), (), looked_at)]

    assert len(names) > 10
    assert told == ["HF_TOKEN"]  # an engine gets it only where its `env` says so


def test_no_value_of_the_environment_is_ever_shown() -> None:
    env = {"API_KYE": "sk-secret", "HTTP_PROXY": "http://user:sk-secret@proxy", "HF_TOKEN": "sk-secret"}

    assert "sk-secret" not in repr(examine(good(env=env)))


def test_the_document_and_the_lines_say_the_same() -> None:
    diagnoses = [Diagnosis("port", "error", "it is taken", "Choose another."), Diagnosis("disk", "ok", "enough")]

    document = as_document(diagnoses)

    assert (document["worst"], document["counts"]) == ("error", {"ok": 1, "warn": 0, "error": 1})
    assert document["checks"][1] == {"check": "disk", "severity": "ok", "text": "enough", "fix": None}
    assert "it is taken. Choose another." in lines(diagnoses)[0]
    assert lines(diagnoses)[-1] == "1 error, 0 warnings"
    assert lines(diagnoses[1:])[-1] == "all is well"
