"""What container files promise: who may reach what, what is written where, and that no version comes by itself."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from app import __version__
from app.config.load import load
from app.config.model import ServerConfig
from app.config.settings import Settings
from tests import ROOT
from tests.containers.dockerfile import IMAGES, arguments, context, stages
from tests.unit.house.test_architecture import FILES

COMPOSE = ("docker-compose.yml", "docker/compose.vllm.yml", "docker/compose.team.yml")
SETTINGS = {name.upper() for name in Settings.model_fields}
# What a process has from its system, and what is only ever set for an engine.
OF_THE_SYSTEM = {"HOME", "PATH", "TMPDIR", "XDG_CACHE_HOME", "HUGGINGFACE_HUB_CACHE"}
FOR_ENGINES = {"VLLM_CPU_KVCACHE_SPACE", "VLLM_USE_MODELSCOPE"}
# Their own documentation has them all: store.md.
OF_POSTGRESQL = {"PGHOST"}
READ_BY_COMPOSE = {"COMPOSE_PROFILES"}
# Folders and addresses inside a container, which compose has no reason to change. (vLLM is in one of the images only.)
SETTLED_IN_IMAGES = {"API_HOST", "API_PORT", "MODELPORT_STATE", "MODELPORT_TOOLS", "MODELPORT_VLLM"}


def compose(name: str) -> dict[str, Any]:
    return dict(YAML(typ="safe").load((ROOT / name).read_text()))


SERVICES = {f"{name}: {service}": entry for name in COMPOSE for service, entry in compose(name)["services"].items()}
MAIN = compose("docker-compose.yml")["services"]


def written_variables() -> list[str]:
    return re.findall(r"(?m)^(?:# )?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text())


def read_by_code(path: Path) -> Iterator[str]:
    """Variables that a file asks an environment for, by their names in the text."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Subscript(value=source, slice=ast.Constant(value=str(name)), ctx=ast.Load()):
                pass
            case ast.Call(func=ast.Attribute(value=source, attr="get"), args=[ast.Constant(value=str(name)), *_]):
                pass
            case _:
                continue
        if re.search(r"\b(env|environ)\b", ast.unparse(source)) and re.fullmatch(r"[A-Z][A-Z0-9_]+", name):
            yield name


def test_the_environment_file_names_every_variable_once() -> None:
    in_code = {name for path in FILES for name in read_by_code(path)} - OF_THE_SYSTEM - FOR_ENGINES - OF_POSTGRESQL
    in_compose = {name for file in COMPOSE for name in re.findall(r"\$\{([A-Z_]+)", (ROOT / file).read_text())}

    assert {"HF_HOME", "MODELPORT_TOOLS"} <= in_code
    assert sorted(written_variables()) == sorted(SETTINGS | in_code | in_compose | READ_BY_COMPOSE)


def test_every_variable_has_its_default_told() -> None:
    blocks = (ROOT / ".env.example").read_text().split("\n\n")[1:]

    assert [block for block in blocks if not block.startswith("# ----") and "Default: " not in block] == []


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_published_is_reachable_from_this_machine_only(service: str) -> None:
    ports = SERVICES[service].get("ports", [])

    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_the_gateway_needs_a_key_and_is_told_what_it_knows() -> None:
    service = MAIN["modelport"]

    assert len(service["ports"]) == 1
    assert service["environment"]["API_KEY"].startswith("${API_KEY:?")
    assert set(service["environment"]) == SETTINGS - SETTLED_IN_IMAGES


def test_what_an_image_settles_itself_is_said_where_one_would_set_it() -> None:
    head = " ".join((ROOT / ".env.example").read_text().split("\n\n")[0].split())

    assert [name for name in sorted(SETTLED_IN_IMAGES - {"API_PORT"}) if name not in head] == []
    for name in IMAGES:
        (last,) = (stage for stage in stages(name) if stage.name == "gateway")
        assert set(last.environment()) >= SETTLED_IN_IMAGES - {"MODELPORT_VLLM"}


@pytest.mark.parametrize("service", MAIN)
def test_a_container_writes_into_volumes_only_and_has_no_rights(service: str) -> None:
    entry = MAIN[service]

    assert entry["read_only"] is True
    assert entry["cap_drop"] == ["ALL"]
    assert entry["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("service", MAIN)
def test_what_is_beside_the_gateway_waits_for_its_profile_and_has_a_version(service: str) -> None:
    entry = MAIN[service]
    image = entry["image"]

    assert service == "modelport" or entry["profiles"]
    assert "latest" not in image
    assert service == "modelport" or re.fullmatch(r"\$\{[A-Z]+_IMAGE:-docker\.io/[\w/-]+:v?[\d.]+\}", image)


def test_it_has_longer_to_end_than_its_requests() -> None:
    config = load(ROOT / "modelport.example.yaml", {})

    assert (
        int(MAIN["modelport"]["stop_grace_period"].removesuffix("s"))
        > config.server.drain_delay_s + config.server.drain_s
    )


TEAM = compose("docker/compose.team.yml")["services"]
GATEWAYS = {name: entry for name, entry in TEAM.items() if name.startswith("gateway-")}


def test_gateways_of_a_team_differ_in_their_names_and_their_state_folders_only() -> None:
    shared = [{**entry, "hostname": "", "volumes": entry["volumes"][1:]} for entry in GATEWAYS.values()]
    states = [entry["volumes"][0] for entry in GATEWAYS.values()]

    assert [entry["hostname"] for entry in GATEWAYS.values()] == list(GATEWAYS)
    assert shared == [shared[0]] * 3
    assert len({*states}) == 3
    assert {state.rpartition(":")[2] for state in states} == {"/var/lib/modelport"}


@pytest.mark.parametrize("service", [name for name in TEAM if "extends" not in TEAM[name]])
def test_a_container_of_a_team_writes_into_volumes_only_and_has_no_rights(service: str) -> None:
    entry = TEAM[service]

    assert entry["read_only"] is True
    assert entry["cap_drop"] == ["ALL"]
    assert entry["security_opt"] == ["no-new-privileges:true"]
    assert service in GATEWAYS or re.fullmatch(r"\$\{[A-Z]+_IMAGE:-docker\.io/[\w/-]+:v?[\d.]+\}", entry["image"])


def test_only_the_load_balancer_of_a_team_is_published_and_it_knows_every_gateway() -> None:
    named = re.findall(r"(?m)^    server (\S+) (\S+)$", (ROOT / "docker/haproxy/haproxy.cfg").read_text())

    assert [name for name, entry in TEAM.items() if "ports" in entry] == ["haproxy"]
    assert named == [(name, f"{name}:8000") for name in GATEWAYS]


def test_a_load_balancer_leaves_a_gateway_out_before_that_takes_no_more_connections() -> None:
    (checks,) = re.findall(r"(?m)^    default-server check (.*)$", (ROOT / "docker/haproxy/haproxy.cfg").read_text())
    told = dict(re.findall(r"(inter|fastinter|fall) (\d+)(?:s|ms|\b)", checks))
    seconds = {name: int(value) / (1000 if f"{name} {value}ms" in checks else 1) for name, value in told.items()}

    # The first failed check may come a whole interval after the signal; the next ones follow sooner.
    latest_s = seconds["inter"] + (seconds["fall"] - 1) * seconds["fastinter"]
    assert latest_s < ServerConfig().drain_delay_s / 2


def test_every_folder_that_is_mounted_is_here() -> None:
    named = set(re.findall(r"\./docker/[\w/-]+", (ROOT / "docker-compose.yml").read_text()))

    assert len(named) == 5
    assert [folder for folder in named if not (ROOT / folder).is_dir()] == []


def test_prometheus_asks_the_gateway_where_it_answers() -> None:
    asked = YAML(typ="safe").load((ROOT / "docker/prometheus/prometheus.yml").read_text())["scrape_configs"]
    environment = MAIN["modelport"]["environment"]
    port = environment["MODELPORT_METRICS_PORT"]

    assert environment["MODELPORT_METRICS_HOST"] == "0.0.0.0"
    assert {target for job in asked for each in job["static_configs"] for target in each["targets"]} == {
        f"modelport:{port}"
    }
    assert [text for text in MAIN["modelport"]["ports"] if port in text] == []


def test_grafana_finds_its_dashboards_where_they_are_mounted() -> None:
    (provider,) = (ROOT / "docker/grafana/provisioning/dashboards").glob("*.y*ml")
    mounted = [volume.split(":")[1] for volume in MAIN["grafana"]["volumes"]]

    assert [
        each["options"]["path"] in mounted for each in YAML(typ="safe").load(provider.read_text())["providers"]
    ] == [True]


@pytest.mark.parametrize("path", sorted((ROOT / "docker/config").glob("*.yaml")), ids=lambda path: path.name)
def test_the_configurations_for_containers_are_right(path: Path) -> None:
    assert "tuned" in load(path, {}).models


def test_an_engine_in_the_gateways_container_gets_what_compose_hands_on_for_it() -> None:
    """Engines inherit no secrets: what a configuration does not name stays with the gateway."""
    handed_on = set(compose("docker/compose.vllm.yml")["services"]["modelport"]["environment"]) - SETTINGS
    told = (ROOT / "docker/config/managed.yaml").read_text()

    assert "HF_TOKEN" in handed_on
    assert [name for name in sorted(handed_on) if f"${{{name}:-" not in told] == []


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_takes_by_hash_what_it_takes(name: str) -> None:
    written = [step.text for stage in stages(name) for step in stage.all("RUN")]
    installs = [line for text in written for line in text.split("&&") if "pip" in line and " install " in line]

    assert len(installs) >= 3
    assert [line for line in installs if "--no-deps" not in line] == []
    assert [line for line in installs if "--require-hashes" not in line and "--no-index" not in line] == []


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_made_of_what_is_there_and_let_in(name: str) -> None:
    copied = [step for stage in stages(name) for step in stage.all("COPY")]
    ours = {Path(source) for step in copied if "from" not in step.flags for source in step.words()[:-1]}

    assert ours <= context()
    assert [path for path in context() if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_nobody_special_on_a_root_that_may_be_read_only(name: str) -> None:
    last = next(stage for stage in stages(name) if stage.name == "gateway")
    environment = last.environment()
    written = set(last.all("VOLUME")[0].words())

    assert [step.text for step in last.all("USER")][-1] == "10001:10001"
    assert {environment["MODELPORT_STATE"], environment["XDG_CACHE_HOME"], environment["HOME"]} == written
    assert any(environment["MODELPORT_TOOLS"].startswith(f"{folder}/") for folder in written)
    assert last.all("ENTRYPOINT")[0].words() == ["tini", "--", "modelport"]
    assert "/livez" in last.all("HEALTHCHECK")[0].text
    assert "libgomp1" in last.all("RUN")[0].text


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_says_which_version_it_is_and_on_what(name: str) -> None:
    last = next(stage for stage in stages(name) if stage.name == "gateway")
    labels = last.all("LABEL")[0].pairs()

    assert arguments(name)["VERSION"] == __version__
    assert {"title", "description", "licenses", "version", "revision", "created", "base.name"} == {
        label.removeprefix("org.opencontainers.image.") for label in labels
    }
    assert {labels[f"org.opencontainers.image.{each}"] for each in ("version", "base.name")} == {
        "${VERSION}",
        "${BASE}",
    }


@pytest.mark.parametrize("name", IMAGES)
def test_compose_builds_on_what_the_image_is_built_on_by_itself(name: str) -> None:
    told = {
        entry["build"]["dockerfile"]: entry["build"]["args"]["BASE"] for entry in SERVICES.values() if "build" in entry
    }

    assert told[name].endswith(f"{arguments(name)['BASE']}}}")


def test_both_images_are_made_in_the_same_way() -> None:
    """What differs is said once: the demo model, and whose PATH it is."""
    plain, vllm = (next(stage for stage in stages(name) if stage.name == "build") for name in IMAGES)

    assert {step.text for step in vllm.all("RUN")} <= {step.text for step in plain.all("RUN")}


def test_nothing_that_git_ignores_goes_into_an_image() -> None:
    ignored = subprocess.run(["git", "check-ignore", *map(str, context())], cwd=ROOT, capture_output=True, text=True)

    assert ignored.stdout == ""
