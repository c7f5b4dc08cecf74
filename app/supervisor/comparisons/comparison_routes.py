"""The routes about votes and runs. Relays ask them for clients, with the names that the client's key opens."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Protocol, TypeVar

import msgspec
from fastapi import Body, FastAPI, Query, Response
from fastapi.responses import HTMLResponse

from app.errors import JSON, bad_request
from app.ipc import SealedComparison
from app.routing import may_use
from app.supervisor.comparisons import runs
from app.supervisor.comparisons.shared_runs import Runs
from app.supervisor.comparisons.shared_votes import Votes
from app.supervisor.comparisons.tally import tally
from app.table import Key

Patterns = Annotated[list[str] | None, Query(alias="model", description="Only what a key for these names may see.")]
Answers = dict[int | str, dict[str, Any]]
T = TypeVar("T")


class _Order(msgspec.Struct, frozen=True):
    id: str
    winner: Any
    key: str | None = None


class ComparisonsApi(Protocol):
    """What is kept of comparisons, here and in the store."""

    @property
    def votes(self) -> Votes: ...
    @property
    def runs(self) -> Runs: ...


def add_comparison_routes(app: FastAPI, api: ComparisonsApi, refusals: Answers, unknown: Answers) -> None:
    """Add them to the admin application. `refusals`: of every route, `unknown`: of routes about one thing."""

    @app.get("/admin/comparisons", tags=["admin"], responses=refusals)
    async def list_runs(patterns: Patterns = None) -> dict[str, Any]:
        """The runs of `modelport compare` in the state folders of all gateways on one store, newest first."""
        return {"object": "list", "data": await api.runs.list_runs(_viewer(patterns))}

    @app.post("/admin/comparisons/sealed", tags=["admin"], responses=refusals)
    async def seal(body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        """Keep what a blind comparison has hidden until its vote comes. For relays."""
        comparison = _read(body, SealedComparison)
        api.votes.seal(comparison)
        return {"id": comparison.id}

    @app.get("/admin/comparisons/votes", tags=["admin"], responses=refusals)
    async def count(patterns: Patterns = None) -> dict[str, Any]:
        """The tally of the votes about blind comparisons."""
        viewer = _viewer(patterns)
        seen = [vote for vote in await api.votes.read() if all(may_use(viewer, name) for name in vote.models)]
        return await asyncio.to_thread(tally, seen)

    @app.post("/admin/comparisons/votes", tags=["admin"], responses=unknown)
    async def vote(body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        """Store a vote (`id`, `winner`, the name of the `key` that asked); the answer tells whose answers they were."""
        order = _read(body, _Order)
        opened = await api.votes.cast(order.id, order.winner, order.key)
        return {
            "id": opened.id,
            "object": "compare.vote",
            "winner": order.winner,
            "pair": opened.pair,
            "models": opened.models,
            "answers": opened.answers,
        }

    @app.get("/admin/comparisons/{run}", tags=["admin"], responses=unknown)
    async def report(run: str, patterns: Patterns = None) -> Response:
        """A run's report as JSON."""
        data = await api.runs.read_report(run, runs.REPORT_JSON, _viewer(patterns))
        return Response(data, media_type=JSON)

    @app.get("/admin/comparisons/{run}/report.html", tags=["admin"], responses=unknown, response_class=HTMLResponse)
    async def page(run: str, patterns: Patterns = None) -> HTMLResponse:
        """The same for reading."""
        data = await api.runs.read_report(run, runs.REPORT_HTML, _viewer(patterns))
        return HTMLResponse(data)


def _viewer(patterns: list[str] | None) -> Key | None:
    """A key that opens these names; None, which opens all, where there are none."""
    return Key("", "", tuple(patterns)) if patterns else None


def _read(body: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as exc:
        raise bad_request(str(exc)) from exc
