"""Who hears of which alert, and what is not told because something else is: asked of a real Alertmanager."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests import ROOT
from tests.journeys.gateway import until
from tests.observe.alertmanager import Alertmanager, tool

CONFIG: Final = ROOT / "docker/alertmanager/alertmanager.yml"
HERE: Final = {"job": "modelport", "instance": "here:9464"}
THERE: Final = {**HERE, "instance": "there:9464"}
ENGINE: Final = {**HERE, "modelport_backend": "gpu"}
OTHER_ENGINE: Final = {**HERE, "modelport_backend": "cpu"}
MODEL: Final = {"job": "modelport", "gen_ai_request_model": "tiny"}
OTHER_MODEL: Final = {**MODEL, "gen_ai_request_model": "large"}


@dataclass(frozen=True, slots=True)
class Scene:
    """One alert that fires, and others beside it."""

    fires: Mapping[str, str]
    is_silenced: Sequence[Mapping[str, str]]
    is_told: Sequence[Mapping[str, str]] = ()


def alert(name: str, labels: Mapping[str, str], **more: str) -> Mapping[str, str]:
    """Its labels."""
    return {**labels, **more, "alertname": name}


SCENES: Final = {
    "no gateway": Scene(
        alert("ModelportGatewayAbsent", {"job": "modelport"}),
        [
            alert("ModelportGatewayDown", HERE),
            alert("ModelportAvailabilityBurnsFast", MODEL),
            alert("ModelportEngineScrapeFails", {"job": "modelport-engines"}, backend="gpu"),
        ],
        [alert("SomebodyElses", HERE)],
    ),
    "no gateway of one of two clusters": Scene(
        alert("ModelportGatewayAbsent", {"job": "modelport"}, cluster="a"),
        [alert("ModelportBackendDown", ENGINE, cluster="a")],
        [alert("ModelportBackendDown", ENGINE, cluster="b")],
    ),
    "one gateway of two": Scene(
        alert("ModelportGatewayDown", HERE),
        [
            alert("ModelportEngineCrashLoop", ENGINE),
            alert("ModelportEngineScrapeFails", {**HERE, "job": "modelport-engines"}, backend="gpu"),
        ],
        [
            alert("ModelportBackendDown", THERE, modelport_backend="gpu"),
            alert("ModelportAvailabilityBurnsFast", MODEL),
        ],
    ),
    "an engine that has given up": Scene(
        alert("ModelportBackendDown", ENGINE, state="failed"),
        [
            alert("ModelportEngineCrashLoop", ENGINE),
            alert("ModelportBackendStarting", ENGINE, state="starting"),
            alert("ModelportAdapterMissing", ENGINE),
            alert("ModelportReplicaEjected", ENGINE),
        ],
        [alert("ModelportEngineCrashLoop", OTHER_ENGINE), alert("ModelportAvailabilityBurnsFast", MODEL)],
    ),
    "all replicas of a backend": Scene(
        alert("ModelportBackendDown", ENGINE, entry="gpu"),
        [alert("ModelportReplicaDown", HERE, modelport_backend="gpu#2", entry="gpu")],
        [alert("ModelportReplicaDown", HERE, modelport_backend="cpu#2", entry="cpu")],
    ),
    "a replica": Scene(
        alert("ModelportReplicaDown", ENGINE, entry="gpu"),
        [alert("ModelportEngineCrashes", ENGINE)],
        [alert("ModelportEngineCrashes", HERE, modelport_backend="gpu#2")],
    ),
    "an engine that crashes again and again": Scene(
        alert("ModelportEngineCrashLoop", ENGINE),
        [alert("ModelportEngineCrashes", ENGINE)],
        [alert("ModelportEngineCrashes", OTHER_ENGINE)],
    ),
    "failures": Scene(
        alert("ModelportAvailabilityBurnsFast", MODEL),
        [alert("ModelportAvailabilityBurnsSlowly", MODEL), alert("ModelportStreamsBreak", MODEL)],
        [alert("ModelportStreamsBreak", OTHER_MODEL)],
    ),
    "late first tokens": Scene(
        alert("ModelportFirstTokensSlow", MODEL),
        [alert("ModelportFirstTokensOftenSlow", MODEL)],
        [alert("ModelportFirstTokensOftenSlow", OTHER_MODEL)],
    ),
    "late answers": Scene(
        alert("ModelportAnswersSlow", MODEL),
        [alert("ModelportAnswersOftenSlow", MODEL)],
        [alert("ModelportFirstTokensSlow", MODEL)],
    ),
}


def in_order(alerts: Sequence[Mapping[str, str]]) -> list[list[tuple[str, str]]]:
    return sorted(sorted(each.items()) for each in alerts)


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    with Alertmanager(tmp_path, CONFIG.read_text()) as running:
        yield running


@pytest.mark.parametrize("name", SCENES)
def test_what_follows_from_something_that_is_told_is_not_told_as_well(alertmanager: Alertmanager, name: str) -> None:
    scene = SCENES[name]

    alertmanager.tell(scene.fires, *scene.is_silenced, *scene.is_told)

    until(lambda: len(alertmanager.in_state("suppressed")) >= len(scene.is_silenced))
    assert in_order(alertmanager.in_state("suppressed")) == in_order(scene.is_silenced)
    assert in_order(alertmanager.in_state("active")) == in_order([scene.fires, *scene.is_told])


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "page"), ("warning", "tickets")])
def test_who_is_told_follows_from_how_bad_it_is(severity: str, receiver: str) -> None:
    told = tool("amtool", "config", "routes", "test", f"--config.file={CONFIG}", f"severity={severity}")

    assert told.split()[0] == receiver  # a warning follows, on what it was not asked
