"""The Helm chart as Helm renders it, and the schemas that what it renders is held against."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
from kubernetes_validate import utils as kubernetes
from ruamel.yaml import YAML

from tests import ROOT
from tests.rigs.serving import PATIENCE_S

CHART = ROOT / "docker" / "helm" / "modelport"
Manifest = Mapping[str, Any]
Values = Mapping[str, Any]


def _group(properties: Mapping[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {**properties}, "required": [*required]}


# What the chart uses of kinds that are not Kubernetes's own; no package carries their schemas, so these are ours.
_POD = _group({"metadata": {"type": "object"}, "spec": {"type": "object"}}, ["spec"])
_TARGET = _group({name: {"type": "string"} for name in ("apiVersion", "kind", "name")}, ["name"])
_RELABELING = _group(
    {
        "sourceLabels": {"type": "array"},
        **{name: {"type": "string"} for name in ("regex", "targetLabel", "replacement")},
    }
)
FOREIGN: Mapping[str, Any] = {
    "leaderworkerset.x-k8s.io/v1 LeaderWorkerSet": _group(
        {
            "replicas": {"type": "integer"},
            "leaderWorkerTemplate": _group(
                {
                    "size": {"type": "integer", "minimum": 2},
                    "restartPolicy": {
                        "enum": ["Default", "RecreateGroupOnPodRestart", "RecreateGroupAfterStart", "None"]
                    },
                    "leaderTemplate": _POD,
                    "workerTemplate": _POD,
                },
                ["workerTemplate"],
            ),
        },
        ["leaderWorkerTemplate"],
    ),
    "monitoring.coreos.com/v1 ServiceMonitor": _group(
        {
            "selector": _group({"matchLabels": {"type": "object"}}),
            "endpoints": {
                "type": "array",
                "items": _group(
                    {
                        "port": {"type": "string"},
                        "path": {"type": "string"},
                        "interval": {"pattern": "^[0-9]+(ms|s|m)$"},
                        "relabelings": {"type": "array", "items": _RELABELING},
                        "metricRelabelings": {"type": "array", "items": _RELABELING},
                    }
                ),
            },
        },
        ["selector", "endpoints"],
    ),
    "monitoring.coreos.com/v1 PrometheusRule": _group({"groups": {"type": "array", "minItems": 1}}, ["groups"]),
    "keda.sh/v1alpha1 ScaledObject": _group(
        {
            "scaleTargetRef": _TARGET,
            "minReplicaCount": {"type": "integer"},
            "maxReplicaCount": {"type": "integer"},
            "cooldownPeriod": {"type": "integer"},
            "advanced": _group({"horizontalPodAutoscalerConfig": _group({"behavior": {"type": "object"}})}),
            "triggers": {
                "type": "array",
                "items": _group(
                    {
                        "type": {"const": "prometheus"},
                        "metadata": _group(
                            {each: {"type": "string"} for each in ("serverAddress", "query", "threshold")}
                        ),
                    },
                    ["type", "metadata"],
                ),
            },
        },
        ["scaleTargetRef", "triggers"],
    ),
}


def helm(*cases: Values) -> dict[str, Any]:
    """What Helm makes of the chart with each of these values, and its lint."""
    named = os.environ.get("MODELPORT_HELM")
    assert named, "make test-deploy names the folder of Helm's library, or set MODELPORT_HELM"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "render.py")],
        input=json.dumps({"chart": str(CHART), "cases": [{"values": values} for values in cases]}),
        env={"PYTHONPATH": named},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def rendered(values: Values) -> list[Manifest]:
    """The objects that an installation with these values makes."""
    (case,) = helm(values)["cases"]
    assert "error" not in case, case["error"]
    return [
        each
        for path, text in case["files"].items()
        if path.endswith(".yaml")
        for each in YAML(typ="safe").load_all(text)
        if each is not None
    ]


def refused(values: Values) -> str:
    """Why Helm does not install it with these values."""
    (case,) = helm({}, values)["cases"][1:]
    return str(case.get("error", "it is not refused"))


def kind_of(manifest: Manifest) -> str:
    """Its version and kind."""
    return f"{manifest['apiVersion']} {manifest['kind']}"


def only(manifests: Sequence[Manifest], kind: str, name: str) -> Manifest:
    """The one of this kind and name."""
    (one,) = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name]
    return one


def pods(manifests: Sequence[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every template of a pod, with the name of what makes it."""
    for each in manifests:
        name = f"{each['kind']} {each['metadata']['name']}"
        spec = each.get("spec", {})
        if "template" in spec:
            yield name, spec["template"]
        for which in ("leaderTemplate", "workerTemplate"):
            if which in spec.get("leaderWorkerTemplate", {}):
                yield f"{name} {which}", spec["leaderWorkerTemplate"][which]


def validate(manifest: Manifest, version: str) -> None:
    """Hold it against Kubernetes's schema of that version, strictly, or against ours."""
    foreign = FOREIGN.get(kind_of(manifest))
    if foreign is None:
        kubernetes.validate(dict(manifest), version, strict=True)
        return
    jsonschema.validate(manifest["spec"], foreign)
    for name, template in pods([manifest]):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            **template,
            "metadata": {"name": "pod", **template.get("metadata", {})},
        }
        assert name
        kubernetes.validate(pod, version, strict=True)
