"""The Helm chart: what Helm makes of it is what Kubernetes takes, and what the gateway takes."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from kubernetes_validate import utils as kubernetes
from ruamel.yaml import YAML

from app import __version__
from app.config.load import loads
from app.config.settings import Settings
from app.supervisor.main import RELAY_GRACE_S
from app.supervisor.service_manager.service_reports import longest_stop_s
from tests import ROOT
from tests.deploy.chart import CHART, Manifest, helm, only, pods, refused, rendered, validate
from tests.rigs.pages import Page
from tests.rigs.serving import PATIENCE_S, environment, until

KEY = {"auth": {"apiKey": "a-key"}}
ENVIRONMENT = {"API_KEY": "a", "VLLM_API_KEY": "b", "STORE_URL": "postgresql://user:word@host:5432/database"}
QWEN = {"model": "Qwen/Qwen3-8B", "publicName": "qwen3-8b", "replicas": 2, "maxInFlight": 64}
BIG = {"model": "/models/DeepSeek-V3", "gpus": 8, "nodes": 2, "modelVolume": {"claim": "models"}}
SCALED = {"autoscaling": {"enabled": True}}
BY_HPA = {"autoscaling": {"enabled": True, "kind": "hpa"}}
CASES: Mapping[str, Mapping[str, Any]] = {
    "one engine": {**KEY, "engines": {"qwen": QWEN}},
    "several machines": {**KEY, "engines": {"qwen": QWEN, "big": BIG}},
    "no engine": {
        "auth": {"existingSecret": "keys"},
        "config": {
            "backends": {"cloud": {"kind": "remote", "url": "https://example.com/v1"}},
            "models": {"chat": {"backend": "cloud"}},
        },
        "gateway": {"replicas": 1, "stateClaim": "state"},
    },
    "a team": {
        **KEY,
        "engines": {"qwen": QWEN},
        "store": {"url": "postgresql://modelport:hidden@postgres:5432/modelport", "settings": {"timeout_s": 1}},
        "gateway": {"replicas": 3, "stateSize": "1Gi", "stateClass": "fast"},
    },
    "everything": {
        "auth": {"existingSecret": "keys"},
        "image": {"repository": "registry.example.com/modelport", "digest": f"sha256:{'ab' * 32}"},
        "imagePullSecrets": [{"name": "pull"}],
        "config": {"keys": [{"name": "office", "sha256": "ab" * 32}], "server": {"drain_s": 600, "access_log": True}},
        "gateway": {
            "replicas": 4,
            "env": [{"name": "MORE", "value": "1"}],
            "envFrom": [{"secretRef": {"name": "more"}}],
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "priorityClassName": "high",
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
            ],
        },
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "ingress": {"enabled": True, "host": "llm.example.com", "className": "nginx", "tlsSecret": "tls"},
        "metrics": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "rules": {"enabled": True},
            "dashboards": {"enabled": True},
        },
        "networkPolicy": {
            "from": [{"namespaceSelector": {}}],
            "metricsFrom": [{"podSelector": {"matchLabels": {"a": "b"}}}],
        },
        "engines": {
            "qwen": {**QWEN, **SCALED, "tokenSecret": "hub", "cacheClaim": "cache", "args": ["--max-model-len=8192"]},
            "big": {**BIG, **BY_HPA, "runtimeClassName": "nvidia", "env": [{"name": "NCCL_DEBUG", "value": "WARN"}]},
        },
    },
}
# From the oldest that is still maintained anywhere (Chart.yaml: kubeVersion) to the newest that schemas are here for.
VERSIONS = [each for each in kubernetes.all_versions() if tuple(map(int, each.split(".")[:2])) >= (1, 29)]


@pytest.fixture(scope="module", params=CASES)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return rendered(CASES[request.param])


@pytest.fixture(scope="module")
def everything() -> list[Manifest]:
    return rendered(CASES["everything"])


def gateways(manifests: list[Manifest]) -> Manifest:
    (one,) = [
        each
        for each in manifests
        if each["kind"] in ("Deployment", "StatefulSet") and each["metadata"]["name"] == "demo-modelport"
    ]
    return one


def configuration(manifests: list[Manifest]) -> str:
    one = only(manifests, "ConfigMap", "demo-modelport")
    return str(one["data"]["modelport.yaml"])


# -- what Helm and Kubernetes say


def test_helm_finds_nothing_wrong_with_it() -> None:
    lint = helm(CASES["everything"])["lint"]

    assert [each for each in lint["messages"] if each["severity"] > 1] == []
    assert lint["errors"] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_everything(everything: list[Manifest], version: str) -> None:
    assert len(VERSIONS) >= 9
    for each in everything:
        validate(each, version)


def test_kubernetes_takes_all_of_it(manifests: list[Manifest]) -> None:
    for each in manifests:
        validate(each, VERSIONS[-1])


@pytest.mark.parametrize("kind", ["Deployment", "LeaderWorkerSet", "ScaledObject", "ServiceMonitor", "Ingress"])
def test_a_field_that_does_not_exist_would_be_seen(everything: list[Manifest], kind: str) -> None:
    one = next(each for each in everything if each["kind"] == kind)

    with pytest.raises((jsonschema.ValidationError, kubernetes.ValidationError)):
        validate({**one, "spec": {**one["spec"], "replica": 1}}, VERSIONS[-1])


def test_a_value_that_does_not_exist_is_refused_by_its_name() -> None:
    assert "replica" in refused({**KEY, "gateway": {"replica": 2}})
    assert "gpu" in refused({**KEY, "engines": {"qwen": {**QWEN, "gpu": 2}}})
    assert "model" in refused({**KEY, "engines": {"qwen": {"replicas": 1}}})
    assert "Qwen_3" in refused({**KEY, "engines": {"Qwen_3": QWEN}})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"engines": {"qwen": QWEN}}, "auth.apiKey is empty"),
        (KEY, "there is no model to serve"),
        ({**KEY, "engines": {"qwen": QWEN}, "gateway": {"stateClaim": "state"}}, "gateway.replicas is 2"),
        (
            {**KEY, "engines": {"qwen": QWEN}, "gateway": {"replicas": 1, "stateClaim": "state", "stateSize": "1Gi"}},
            "gateway.stateClaim and gateway.stateSize are both set",
        ),
        ({**KEY, "engines": {"a": QWEN, "b": QWEN}}, '"qwen3-8b" is the name of engines.a already'),
        ({**KEY, "engines": {"a": QWEN}, "ingress": {"enabled": True}}, "ingress.host is empty"),
    ],
)
def test_a_mistake_is_one_sentence_with_what_to_do(values: Mapping[str, Any], words: str) -> None:
    assert words in refused(values)


def test_the_values_that_the_page_shows_are_values() -> None:
    blocks = Page("kubernetes", (ROOT / "docs/kubernetes.md").read_text()).blocks("yaml")
    shown = [YAML(typ="safe").load(textwrap.dedent(block)) for block in blocks]
    known = YAML(typ="safe").load(CHART.joinpath("values.yaml").read_text())
    values = [each for each in shown if each.keys() <= known.keys()]

    answers = helm(*({**CASES["one engine"], **each} for each in values))["cases"]

    assert len(values) == len(shown) - 1 >= 4  # one is a rule for another program
    assert [case["error"] for case in answers if "error" in case] == []


# -- what the gateway says


@pytest.mark.parametrize("case", CASES)
def test_the_configuration_passes_modelport_check(tmp_path: Path, case: str) -> None:
    path = tmp_path / "modelport.yaml"
    path.write_text(configuration(rendered(CASES[case])))
    env = {**environment(), **ENVIRONMENT}
    checked = subprocess.run(
        [sys.executable, "-P", "-m", "app", "check", "--config", str(path), "--json"],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )

    assert checked.returncode == 0, checked.stderr
    answer = json.loads(checked.stdout)
    assert not answer.get("warnings"), answer


def test_an_engine_is_a_backend_whose_addresses_are_in_the_dns(everything: list[Manifest]) -> None:
    config = loads(configuration(everything), ENVIRONMENT, source="chart")
    services = {each["metadata"]["name"]: each["spec"] for each in everything if each["kind"] == "Service"}

    assert {name: model.backend for name, model in config.models.items()} == {"qwen3-8b": "qwen", "big": "big"}
    for name, backend in config.backends.items():
        host = str(backend.followed_host())
        service, namespace, *rest = host.split(".")
        assert (service, namespace, rest) == (f"demo-modelport-{name}-api", "models", ["svc", "cluster", "local"])
        assert services[service]["clusterIP"] == "None"
    assert config.server.drain_s == 600


def test_a_pod_has_more_time_to_end_than_the_gateway_takes(manifests: list[Manifest]) -> None:
    config = loads(configuration(manifests), ENVIRONMENT, source="chart")
    deployment = gateways(manifests)
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]

    assert grace > longest_stop_s(config, RELAY_GRACE_S, config.server.drain_delay_s)


def test_it_is_of_the_same_version_user_and_vllm_as_the_images(everything: list[Manifest]) -> None:
    chart = CHART.joinpath("Chart.yaml").read_text()
    dockerfile, with_vllm = (ROOT / "docker" / name for name in ("Dockerfile", "Dockerfile.vllm"))
    users = {template["spec"]["securityContext"]["runAsUser"] for _, template in pods(everything)}
    default = re.search(r"^ARG BASE=(\S+)$", with_vllm.read_text(), re.MULTILINE)

    assert f"appVersion: {__version__}" in chart
    assert {f"USER {user}:{user}" in dockerfile.read_text() for user in users} == {True}
    assert default is not None
    assert f"image: {default[1]}" in CHART.joinpath("values.yaml").read_text()


def test_the_gateway_serves_with_it_from_a_volume_as_a_pod_has_it(tmp_path: Path) -> None:
    """A volume belongs to root, is open to the pod's group, and what is made in it gets that group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config, volume = tmp_path / "modelport.yaml", tmp_path / "volume"
    config.write_text(configuration(rendered({**CASES["one engine"], "metrics": {"port": port}})))
    volume.mkdir()
    volume.chmod(0o2777)
    env = {**environment(), "API_KEY": "a-key", "VLLM_API_KEY": "b", "MODELPORT_STATE": str(volume / "state")}
    command = [
        sys.executable,
        "-P",
        "-m",
        "app",
        "serve",
        "--config",
        str(config),
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as gateway:
        try:
            assert gateway.stdout is not None
            url = next(match[1] for line in gateway.stdout if (match := re.search(r"listens on (http://\S+)", line)))
            until(lambda: _status(f"{url}/livez") == 200)
            ready, metrics = _status(f"{url}/readyz"), httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S)
        finally:
            gateway.send_signal(signal.SIGINT)
            gateway.wait(PATIENCE_S)

    assert ready == 503  # no engine's name is in the DNS here
    assert "modelport_build_info" in metrics.text
    assert stat.S_IMODE((volume / "state").stat().st_mode) & 0o777 == 0o700
    assert gateway.returncode == 0


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=PATIENCE_S).status_code
    except httpx.ConnectError:
        return 0


# -- what nobody may


def test_every_pod_is_restricted(manifests: list[Manifest]) -> None:
    """As the Pod Security Standard `restricted` asks."""
    for name, template in pods(manifests):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name


def test_nothing_has_a_right_at_the_kubernetes_api(manifests: list[Manifest]) -> None:
    assert {each["kind"] for each in manifests}.isdisjoint({"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"})
    assert {template["spec"]["automountServiceAccountToken"] for _, template in pods(manifests)} == {False}


def test_the_gateway_writes_into_volumes_only(manifests: list[Manifest]) -> None:
    (container,) = gateways(manifests)["spec"]["template"]["spec"]["containers"]
    env = {each["name"]: each.get("value", "") for each in container["env"]}
    mounts = [each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")]

    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert mounts == ["/var/lib/modelport", "/var/cache/modelport", "/tmp"]
    assert Path(env["MODELPORT_STATE"]).parent == Path("/var/lib/modelport")
    assert {name.lower() for name in env if name.startswith("MODELPORT_")} <= set(Settings.model_fields)


def test_no_key_is_in_the_configuration(everything: list[Manifest]) -> None:
    with_keys = rendered({**CASES["one engine"], "auth": {"apiKey": "top-secret", "engineKey": "secret-too"}})
    secret = only(with_keys, "Secret", "demo-modelport")

    assert secret["stringData"] == {"API_KEY": "top-secret", "VLLM_API_KEY": "secret-too"}
    assert [each["kind"] for each in with_keys if "secret" in json.dumps(each) and each["kind"] == "ConfigMap"] == []
    assert [each for each in everything if each["kind"] == "Secret"] == []


def test_gateways_of_a_team_share_a_store_and_have_state_folders_of_their_own() -> None:
    team = rendered(CASES["a team"])
    config = loads(configuration(team), ENVIRONMENT, source="chart")
    spec = gateways(team)["spec"]
    (claim,) = spec["volumeClaimTemplates"]

    assert (config.store.assume_gateways, config.store.timeout_s) == (3, 1)
    assert config.store.url is not None
    assert config.store.url.get_secret_value() == ENVIRONMENT["STORE_URL"]
    assert claim["spec"]["storageClassName"] == "fast"
    assert "state" not in [volume["name"] for volume in spec["template"]["spec"]["volumes"]]
    assert [each["kind"] for each in team if "hidden" in json.dumps(each)] == ["Secret"]
    env = {each["name"]: each for each in spec["template"]["spec"]["containers"][0]["env"]}
    assert env["STORE_URL"]["valueFrom"]["secretKeyRef"] == {"name": "demo-modelport-store", "key": "STORE_URL"}


def test_several_gateways_without_a_store_are_told_that_they_count_alone() -> None:
    alone, team, one = helm(CASES["one engine"], CASES["a team"], CASES["no engine"])["cases"]
    said = ["counts limits" in json.dumps(case) for case in (alone, team, one)]

    assert said == [True, False, False]


def test_engines_have_a_key_of_their_own_that_stays_the_same() -> None:
    first, again = (only(rendered(CASES["one engine"]), "Secret", "demo-modelport")["stringData"] for _ in range(2))

    assert first == again
    assert first["VLLM_API_KEY"] not in ("", first["API_KEY"])


# -- what belongs together


def test_what_selects_pods_selects_those_that_it_means(manifests: list[Manifest]) -> None:
    labels = {name: template["metadata"]["labels"] for name, template in pods(manifests)}
    for each in manifests:
        spec = each.get("spec", {})
        selector = spec.get("selector", spec.get("podSelector"))
        if each["kind"] == "ServiceMonitor" or selector is None:
            continue
        wanted = selector.get("matchLabels", selector)
        chosen = [name for name, own in labels.items() if wanted.items() <= own.items()]
        expected = each["metadata"]["name"].removesuffix("-api").removesuffix("-metrics")
        assert chosen, (each["kind"], expected)
        assert {name.split()[1] for name in chosen} == {expected}, each["kind"]
        if each["metadata"]["name"].endswith("-api"):
            assert not any(name.endswith("workerTemplate") for name in chosen)


def test_only_the_gateway_may_ask_an_engine(everything: list[Manifest]) -> None:
    policy = only(everything, "NetworkPolicy", "demo-modelport-big")
    api, own = policy["spec"]["ingress"]
    gateway = only(everything, "Deployment", "demo-modelport")["spec"]["template"]["metadata"]["labels"]

    assert api["ports"] == [{"port": 8000}]
    assert api["from"][0]["podSelector"]["matchLabels"].items() <= gateway.items()
    assert own["from"][0]["podSelector"] == policy["spec"]["podSelector"]


def test_prometheus_finds_both_pages_of_metrics(everything: list[Manifest]) -> None:
    monitor = only(everything, "ServiceMonitor", "demo-modelport")["spec"]
    services = [each for each in everything if each["kind"] == "Service"]
    wanted = monitor["selector"]["matchLabels"].items()
    (service,) = [each for each in services if wanted <= each["metadata"]["labels"].items()]

    assert [each["path"] for each in monitor["endpoints"]] == ["/metrics", "/metrics/engines"]
    (added,) = monitor["endpoints"][0]["metricRelabelings"]
    assert [re.fullmatch(added["regex"], name) is not None for name in ("qwen", "qwen#2", "")] == [True, True, False]
    assert {each["port"] for each in monitor["endpoints"]} == {port["name"] for port in service["spec"]["ports"]}
    (public,) = [each for each in services if each["spec"].get("type") == "LoadBalancer"]
    assert [port["name"] for port in public["spec"]["ports"]] == ["http"]


def test_alerts_and_dashboards_are_those_of_the_repository(everything: list[Manifest]) -> None:
    rules = only(everything, "PrometheusRule", "demo-modelport")["spec"]
    config = YAML(typ="safe").load((ROOT / "docker/prometheus/prometheus.yml").read_text())
    monitor = only(everything, "ServiceMonitor", "demo-modelport")["spec"]
    jobs = [each["relabelings"][0]["replacement"] for each in monitor["endpoints"]]

    assert rules == YAML(typ="safe").load((ROOT / "docker/prometheus/rules.yml").read_text())
    assert jobs == [each["job_name"] for each in config["scrape_configs"]]
    dashboards = sorted((ROOT / "docker/grafana/dashboards").glob("*.json"))
    assert len(dashboards) >= 4
    for path in dashboards:
        assert only(everything, "ConfigMap", f"demo-modelport-{path.stem}")["data"] == {path.name: path.read_text()}


def test_what_scales_an_engine_leaves_its_number_to_it(everything: list[Manifest]) -> None:
    keda = only(everything, "ScaledObject", "demo-modelport-qwen")["spec"]
    hpa = only(everything, "HorizontalPodAutoscaler", "demo-modelport-big")["spec"]
    scaled = [
        only(everything, target["kind"], target["name"])["spec"]
        for target in (keda["scaleTargetRef"], hpa["scaleTargetRef"])
    ]
    told = (ROOT / "docs/metrics.md").read_text()

    assert ["replicas" in spec for spec in scaled] == [False, False]
    monitor = only(everything, "ServiceMonitor", "demo-modelport")["spec"]
    added = monitor["endpoints"][0]["metricRelabelings"][0]["targetLabel"]
    assert hpa["metrics"][0]["external"]["metric"]["selector"] == {"matchLabels": {added: "big"}}
    series = re.findall(r"\bmodelport_\w+(?=\{)", keda["triggers"][0]["metadata"]["query"])
    assert [f"### `{name}`" in told for name in [*series, hpa["metrics"][0]["external"]["metric"]["name"]]] == [
        True
    ] * 2


def test_the_machines_of_one_model_are_told_who_they_are(everything: list[Manifest]) -> None:
    group = only(everything, "LeaderWorkerSet", "demo-modelport-big")["spec"]["leaderWorkerTemplate"]
    leader, worker = (group[which]["spec"]["containers"][0]["args"] for which in ("leaderTemplate", "workerTemplate"))

    assert group["size"] == 2
    assert [each for each in worker if each not in leader] == ["--headless"]
    for words in (
        "--nnodes=$(LWS_GROUP_SIZE)",
        "--node-rank=$(LWS_WORKER_INDEX)",
        "--master-addr=$(LWS_LEADER_ADDRESS)",
        "--tensor-parallel-size=8",
        "--pipeline-parallel-size=2",
    ):
        assert words in leader


def test_a_new_version_of_the_chart_does_not_start_engines_anew(everything: list[Manifest]) -> None:
    templates = dict(pods(everything))

    assert [name for name, each in templates.items() if "helm.sh/chart" in json.dumps(each["metadata"])] == []
