"""The routes of both pages in the admin application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse

from app.supervisor.metrics.pages import PATHS, TEXT


class BothPages(Protocol):
    """The two pages as they are now."""

    @property
    def gateway(self) -> Callable[[], Awaitable[bytes]]: ...
    @property
    def engines(self) -> Callable[[], Awaitable[bytes]]: ...


class MetricsApi(Protocol):
    """Whose pages they are."""

    @property
    def metrics(self) -> BothPages: ...


def add_metrics_routes(app: FastAPI, api: MetricsApi, responses: dict[int | str, dict[str, Any]]) -> None:
    """Add them to the admin application. `responses`: the refusals of routes for administrators."""

    @app.get(PATHS[0], tags=["gateway"], response_class=PlainTextResponse, responses=responses)
    async def metrics() -> Response:
        """All series of the gateway, in Prometheus's text format."""
        return PlainTextResponse(await api.metrics.gateway(), media_type=TEXT)

    @app.get(PATHS[1], tags=["gateway"], response_class=PlainTextResponse, responses=responses)
    async def engine_metrics() -> Response:
        """The engines' own series, each with the label `backend`, in Prometheus's text format."""
        return PlainTextResponse(await api.metrics.engines(), media_type=TEXT)
