"""The admin application on `control.sock`. Whoever reaches it is an administrator: relays check keys and roles before.

A relay forwards `/health`, `/metrics`, `/metrics/engines`, `/version`, `/openapi.json`, `/docs` and `/admin/*` of the
public port to here; the command line connects directly, as the permissions of the socket allow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Protocol

import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.config.yaml_document import ConfigError
from app.errors import JSON, Problem, bad_request, internal_error, method_not_allowed, not_found
from app.store.database import StoreError
from app.supervisor.admin import openapi
from app.supervisor.admin.parity_routes import ParityApi, add_parity_routes
from app.supervisor.admin.plan_schemas import PlanAnswer
from app.supervisor.admin.schemas import (
    AdapterOrder,
    AdaptersAnswer,
    BackendAnswer,
    ErrorAnswer,
    Health,
    Logs,
    Models,
    ProbesAnswer,
    Reloaded,
    Status,
    Version,
)
from app.supervisor.admin.team.audit_routes import add_audit_routes
from app.supervisor.admin.team.audit_seam import AuditSeam
from app.supervisor.admin.team.keys_routes import KeysApi, add_keys_routes
from app.supervisor.admin.team.peers import AdminProtocol
from app.supervisor.admin.team.usage_routes import UsageApi, add_usage_routes
from app.supervisor.comparisons.comparison_routes import ComparisonsApi, add_comparison_routes
from app.supervisor.metrics.metrics_routes import MetricsApi, add_metrics_routes
from app.supervisor.team.team import Team
from backends.endpoint import CAPABILITIES, Capability

LOG_LINES = 200
# What a relay answers in our place to clients without the right key.
_FOR_ADMINS = openapi.errors(401, 403)
_UNKNOWN = {**_FOR_ADMINS, **openapi.errors(400), 404: {"model": ErrorAnswer, "description": "No such backend."}}
_UNKNOWN_MODEL = {
    **_FOR_ADMINS,
    **openapi.errors(400, 429, 502, 503),
    404: {"model": ErrorAnswer, "description": "No such model."},
}
_ADAPTER = {
    **_UNKNOWN,
    409: {"model": ErrorAnswer, "description": "The name is taken."},
    422: {"model": ErrorAnswer, "description": "The engine refuses it; nothing has changed."},
}


_COMPARISONS: dict[int | str, dict[str, Any]] = {**_FOR_ADMINS, **openapi.errors(503)}
_COMPARISON: dict[int | str, dict[str, Any]] = {
    **_COMPARISONS,
    404: {"model": ErrorAnswer, "description": "There is no such run or comparison."},
}


class AdminApi(ParityApi, ComparisonsApi, MetricsApi, KeysApi, UsageApi, Protocol):
    """What an administrator may ask for and order. KeyError: there is no backend of that name."""

    @property
    def team(self) -> Team: ...

    def health(self) -> Health: ...
    def models(self) -> Models: ...
    def status(self) -> Status: ...
    async def plan(self) -> PlanAnswer: ...
    def logs(self, backend: str, lines: int, life: int | None = None) -> Logs: ...
    async def start(self, backend: str) -> BackendAnswer: ...
    async def stop(self, backend: str) -> BackendAnswer: ...
    async def restart(self, backend: str) -> BackendAnswer: ...

    def adapters(self, backend: str) -> AdaptersAnswer: ...
    async def load_adapter(self, backend: str, order: AdapterOrder) -> AdaptersAnswer: ...
    async def unload_adapter(self, backend: str, name: str) -> AdaptersAnswer: ...

    async def probe(self, model: str, capabilities: Collection[str], *, again: bool) -> ProbesAnswer:
        """KeyError: there is no model of that name."""
        ...

    async def reload(self) -> Reloaded:
        """ConfigError when the file is invalid; nothing has changed then."""
        ...


def create_admin(api: AdminApi, version: str, *, docs: bool = False, root_path: str = "") -> ASGIApp:
    """The ASGI application. Every response that is not 2xx has the shape of ErrorAnswer."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False
    _queries(app, api, version)
    add_metrics_routes(app, api, _FOR_ADMINS)
    _orders(app, api)
    _adapters(app, api)
    _probe(app, api)
    add_parity_routes(app, api, _UNKNOWN_MODEL)
    add_comparison_routes(app, api, _COMPARISONS, _COMPARISON)
    add_keys_routes(app, api, {**_FOR_ADMINS, **openapi.errors(400, 503)})
    add_usage_routes(app, api, {**_FOR_ADMINS, **openapi.errors(400, 503)})
    add_audit_routes(app, lambda: api.team.audit, _COMPARISONS)
    described = openapi.document(app.routes, version, root_path)

    @app.get("/openapi.json", include_in_schema=False)
    async def describe() -> JSONResponse:
        return JSONResponse(described)

    if docs:

        @app.get("/docs", include_in_schema=False)
        async def page() -> HTMLResponse:
            return HTMLResponse(openapi.page(described))

    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(StoreError, _store_error)
    app.add_exception_handler(Exception, _internal_error)
    return AuditSeam(_HeadAndOptions(app), lambda: api.team.audit, lambda: _relays(api))


class AdminServer(uvicorn.Server):
    """Serves the application on its socket until `should_exit` is set. Signals are left to the supervisor."""

    def __init__(self, application: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http=AdminProtocol,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the supervisor."""
        yield


def _queries(app: FastAPI, api: AdminApi, version: str) -> None:
    @app.get("/health", tags=["gateway"], responses=openapi.health_answers())
    async def health() -> Health:
        """Version, models and backends with their states and reasons; 200 whatever `status` says.

        Clients without an admin's key get what `/readyz` answers.
        """
        return api.health()

    @app.get("/version", tags=["gateway"])
    async def running_version() -> Version:
        """The version that runs."""
        return Version(version=version)

    @app.get("/admin/models", tags=["admin"], responses=_FOR_ADMINS)
    async def models() -> Models:
        """The public names, with the backends that serve them."""
        return api.models()

    @app.get("/admin/status", tags=["admin"], responses=_FOR_ADMINS)
    async def status() -> Status:
        """`/health`, with the processes, the address and the state folder."""
        return api.status()

    @app.get("/admin/plan", tags=["admin"], responses=_FOR_ADMINS)
    async def plan() -> PlanAnswer:
        """Where each engine runs, what it takes, and what to change where it does not fit."""
        return await api.plan()

    @app.get("/admin/backends/{name:path}/logs", tags=["admin"], responses=_UNKNOWN)
    async def logs(
        name: str, lines: Annotated[int, Query(ge=1, le=10_000)] = LOG_LINES, life: int | None = None
    ) -> Logs:
        """The last lines that its process wrote. `life`: in that start of it; a negative number counts back."""
        with _known_backend(name):
            return api.logs(name, lines, life)


def _orders(app: FastAPI, api: AdminApi) -> None:
    @app.post(
        "/admin/reload", tags=["admin"], responses={422: {"model": ErrorAnswer, "description": "The file is bad."}}
    )
    async def reload() -> Reloaded:
        """Read the configuration again. A bad file changes nothing; an unchanged backend is not touched."""
        try:
            return await api.reload()
        except ConfigError as exc:
            raise Problem(422, "config_invalid", "\n".join(exc.errors)) from exc

    @app.post("/admin/backends/{name:path}/start", tags=["admin"], status_code=202, responses=_UNKNOWN)
    async def start(name: str) -> BackendAnswer:
        """Start it; earlier failures no longer count. Answers at once."""
        with _known_backend(name):
            return await api.start(name)

    @app.post("/admin/backends/{name:path}/stop", tags=["admin"], status_code=202, responses=_UNKNOWN)
    async def stop(name: str) -> BackendAnswer:
        """Let it finish its requests, then stop it, until it is started again here. Answers at once."""
        with _known_backend(name):
            return await api.stop(name)

    @app.post("/admin/backends/{name:path}/restart", tags=["admin"], status_code=202, responses=_UNKNOWN)
    async def restart(name: str) -> BackendAnswer:
        """Stop it, then start it. Answers at once."""
        with _known_backend(name):
            return await api.restart(name)


def _probe(app: FastAPI, api: AdminApi) -> None:
    @app.post("/admin/models/{name:path}/probe", tags=["admin"], responses=_UNKNOWN_MODEL)
    async def probe(
        name: str, capability: Annotated[list[Capability] | None, Query()] = None, again: bool = False
    ) -> ProbesAnswer:
        """Test with tiny real requests what a model can do; its engine is started if need be.

        Each capability is tested once per engine version, unless `again`. Without `capability`, all are tested.
        """
        try:
            return await api.probe(name, capability or CAPABILITIES, again=again)
        except KeyError as exc:
            raise Problem(404, "model_not_found", f"There is no model {name!r}.", param="model") from exc


def _adapters(app: FastAPI, api: AdminApi) -> None:
    @app.get("/admin/backends/{name:path}/adapters", tags=["admin"], responses=_UNKNOWN)
    async def adapters(name: str) -> AdaptersAnswer:
        """The adapters that it is to have, each with the reason where its engine does not have it."""
        with _known_backend(name):
            return api.adapters(name)

    @app.post("/admin/backends/{name:path}/adapters/load", tags=["admin"], responses=_ADAPTER)
    async def load(name: str, order: AdapterOrder) -> AdaptersAnswer:
        """Serve an adapter under a public name of its own, until the configuration of the backend changes.

        Its files are checked, and its answers are held against the base's (`proof`), before the name is public.
        """
        with _known_backend(name):
            return await api.load_adapter(name, order)

    @app.post("/admin/backends/{name:path}/adapters/unload", tags=["admin"], responses=_UNKNOWN)
    async def unload(name: str, adapter: Annotated[str, Query(min_length=1)]) -> AdaptersAnswer:
        """Stop serving it."""
        with _known_backend(name):
            return await api.unload_adapter(name, adapter)


@contextlib.contextmanager
def _known_backend(name: str) -> Iterator[None]:
    """Turns the AdminApi's KeyError into a 404."""
    try:
        yield
    except KeyError as exc:
        raise Problem(404, "backend_not_found", f"There is no backend {name!r}.") from exc


class _HeadAndOptions:
    """Answers HEAD wherever GET is answered, and OPTIONS everywhere. The server leaves out the body for HEAD."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            allowed = allowed_methods(self._app, scope)
            response = Response(status_code=204, headers={"allow": allowed}) if allowed else _response(not_found())
            await response(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] == "HEAD":
            await self._app({**scope, "method": "GET"}, receive, send)
        else:
            await self._app(scope, receive, send)


def allowed_methods(app: FastAPI, scope: Scope) -> str:
    """The value of the Allow header for this path; "" for an unknown path."""
    methods: set[str] = set()
    for route in app.routes:
        if route.matches(scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    if not methods:
        return ""
    return ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))


def _relays(api: AdminApi) -> set[int]:
    relays = api.status().relays
    return {*relays.pids, *relays.connected}


def _response(problem: Problem) -> Response:
    return Response(problem.body(), problem.status, problem.headers, JSON)


async def _problem(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Problem)
    return _response(exc)


async def _store_error(_request: Request, exc: Exception) -> Response:
    return _response(Problem(503, "store_unavailable", f"The store does not answer: {exc}"))


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    match exc.status_code:
        case 404:
            return _response(not_found())
        case 405:
            return _response(method_not_allowed(allowed_methods(request.app, request.scope)))
        case status:
            return _response(Problem(status, "invalid_request", str(exc.detail)))


async def _invalid_request(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    if first["type"] == "json_invalid":
        return _response(bad_request("The request's body is not valid JSON.", code="invalid_json"))
    place = ".".join(str(part) for part in first["loc"][1:])
    if not place and first["type"] == "missing":
        return _response(bad_request("The request has no body; a JSON object is expected.", code="invalid_json"))
    if not place:
        return _response(bad_request("The request's body must be a JSON object.", code="invalid_json"))
    return _response(bad_request(f"{place}: {first['msg']}", param=place))


async def _internal_error(_request: Request, _exc: Exception) -> Response:
    # Starlette raises it again after this response, so uvicorn logs it with its traceback.
    return _response(internal_error())
