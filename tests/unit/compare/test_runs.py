"""Runs in the state folder are shown to whoever may use each of their models, and never run anything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from app.keys import digest
from app.supervisor.comparisons.runs import list_runs
from app.table import Key
from tests.rigs.comparison import ComparisonRig, comparing

REPORT = '<!doctype html><meta charset="utf-8"><title>r</title><p>数</p>'


def write_run(
    folder: Path, name: str, created: int, models: tuple[str, ...] = ("base", "tuned"), **more: object
) -> None:
    path = folder / name
    path.mkdir(parents=True)
    record = {"version": 1, "id": name, "created": created, "models": models, "questions": 50, "order": {}, **more}
    (path / "run.json").write_text(json.dumps(record))


def finish(folder: Path, name: str) -> None:
    (folder / name / "report.json").write_text(json.dumps({"verdict": name}))
    (folder / name / "report.html").write_text(REPORT)


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[ComparisonRig]:
    async with comparing(keeps=True) as rig:
        folder = rig.rig.state / "comparisons"
        write_run(folder, "first", 100, pair="sky", state="finished")
        finish(folder, "first")
        write_run(folder, "second", 200, models=("base",), state="stopped", reason="base is served anew")
        yield rig


def test_where_no_run_ever_was_the_list_is_empty(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "comparisons", None) == []


def test_what_is_no_run_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "comparisons"
    write_run(folder, "good", 1)
    write_run(tmp_path / "elsewhere", "other", 1)
    (folder / "link").symlink_to(tmp_path / "elsewhere" / "other")
    (folder / "empty").mkdir()
    (folder / "file").write_text("x")
    (folder / "torn").mkdir()
    (folder / "torn" / "run.json").write_bytes(b'{"id": "\xff')
    write_run(folder, ".hidden", 1)

    assert [run["id"] for run in list_runs(folder, None)] == ["good"]


async def test_the_list_has_the_newest_first_and_says_how_each_stands(rig: ComparisonRig) -> None:
    listed = (await rig.rig.ask("/v1/compare/runs")).json

    assert listed["data"] == [
        {
            "object": "compare.run",
            "id": "second",
            "created": 200,
            "models": ["base"],
            "questions": 50,
            "pair": None,
            "state": "stopped",
            "reason": "base is served anew",
            "has_report": False,
        },
        {
            "object": "compare.run",
            "id": "first",
            "created": 100,
            "models": ["base", "tuned"],
            "questions": 50,
            "pair": "sky",
            "state": "finished",
            "reason": None,
            "has_report": True,
        },
    ]


async def test_a_report_for_reading_comes_under_a_policy_that_lets_it_do_nothing(rig: ComparisonRig) -> None:
    shown = await rig.rig.ask("/v1/compare/runs/first/report.html")

    policy = shown.headers["content-security-policy"]
    assert (shown.status, shown.body.decode()) == (200, REPORT)
    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith("; sandbox")
    assert "script" not in policy
    assert "connect" not in policy
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert (await rig.rig.ask("/v1/compare/runs/first")).json == {"verdict": "first"}


async def test_a_key_sees_the_runs_all_of_whose_models_it_may_use(rig: ComparisonRig) -> None:
    await rig.rig.published(keys=(Key("part", digest("mp-part"), models=("ba*",)), Key("all", digest("mp-all"))))
    part, all_ = {"authorization": "Bearer mp-part"}, {"authorization": "Bearer mp-all"}

    assert [run["id"] for run in (await rig.rig.ask("/v1/compare/runs", headers=part)).json["data"]] == ["second"]
    assert len((await rig.rig.ask("/v1/compare/runs", headers=all_)).json["data"]) == 2
    for path in ("/v1/compare/runs/first", "/v1/compare/runs/first/report.html"):
        assert (await rig.rig.ask(path, headers=part)).error["code"] == "run_not_found"
        assert (await rig.rig.ask(path, headers=all_)).status == 200


async def test_a_run_without_a_report_says_how_it_stands(rig: ComparisonRig) -> None:
    reply = await rig.rig.ask("/v1/compare/runs/second")

    assert (reply.status, reply.error["code"]) == (404, "run_not_found")
    assert reply.error["message"] == "This run has no report yet: it is stopped (base is served anew)."


@pytest.mark.parametrize(
    "name",
    [
        "nowhere",
        "..",
        ".",
        "%2e%2e",
        "..%2f..%2fproofs.json",
        "first/run.json",
        "first/../second",
        "first%2freport.json",
    ],
)
async def test_no_name_leads_to_another_file(rig: ComparisonRig, name: str) -> None:
    reply = await rig.rig.ask(f"/v1/compare/runs/{name}")

    assert (reply.status, reply.error["code"]) in ((404, "run_not_found"), (404, "route_not_found"))


async def test_a_report_that_is_a_link_is_not_followed(rig: ComparisonRig) -> None:
    folder = rig.rig.state / "comparisons"
    (folder / "second" / "report.json").symlink_to(folder / "first" / "report.json")

    assert (await rig.rig.ask("/v1/compare/runs/second")).error["code"] == "run_not_found"
