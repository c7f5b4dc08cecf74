"""The handlers of `/v1/compare` and of what lies below it. Votes and runs are the supervisor's to keep; which of them a
key may see is decided here, by the names that it opens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec
import structlog

from app.dialects.client_api import decoded
from app.errors import Problem, bad_request
from app.ipc import SealedComparison
from app.relay.compare.ask import pairs_for
from app.relay.compare.comparer import Comparer
from app.relay.http.body_intake import BodyIntake
from app.relay.http.request import Request
from app.relay.proxy.dispatch import Dispatcher
from app.relay.routes.gateway_api import GatewayApi

log = structlog.get_logger()

VOTES_PATH: Final = "/admin/comparisons/votes"
SEALS_PATH: Final = "/admin/comparisons/sealed"
RUNS_PATH: Final = "/admin/comparisons"
RUN_PREFIX: Final = "/v1/compare/runs/"
_REPORT: Final = "report.html"
# A report carries texts that models wrote: it may show itself, and do nothing.
REPORT_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; sandbox"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class _Ballot(msgspec.Struct, frozen=True):
    id: str | None = None
    winner: int | str | None = None


_ballots = msgspec.json.Decoder(_Ballot)


class CompareApi:
    """Comparisons, the votes about blind ones, and the runs that are there to be read."""

    def __init__(
        self, dispatcher: Dispatcher, intake: BodyIntake, gateway: GatewayApi, refused: Callable[[str], None]
    ) -> None:
        self._intake = intake
        self._gateway = gateway
        self._comparer = Comparer(dispatcher, intake, self._seal, refused)

    async def compare(self, request: Request) -> None:
        """One question to several models."""
        await self._comparer.run(request)

    async def list_pairs(self, request: Request) -> None:
        """The pairs of the configuration all of whose models the key may use."""
        pairs = pairs_for(request.table, request.key)
        data = [
            {"id": pair, "object": "compare.pair", "words": list(members), "models": list(members.values())}
            for pair, members in pairs.items()
        ]
        request.answer_json({"object": "list", "data": data})

    async def votes(self, request: Request) -> None:
        """POST: a vote about a blind comparison, which opens it. GET: the tally."""
        if request.method != "POST":
            await self._pass_on(request, f"{VOTES_PATH}{_for(request)}")
            return
        request.check_type()
        ballot = decoded(_ballots, await self._intake.read(request))
        if not ballot.id or ballot.winner is None:
            missing = "winner" if ballot.id else "id"
            raise bad_request(f"'{missing}' is missing.", param=missing, code="missing_field")
        key = request.key.name if request.key is not None else None
        order = msgspec.json.encode({"id": ballot.id, "winner": ballot.winner, "key": key})
        await self._pass_on(request, VOTES_PATH, order)

    async def list_runs(self, request: Request) -> None:
        """The runs all of whose models the key may use."""
        await self._pass_on(request, f"{RUNS_PATH}{_for(request)}")

    async def show_run(self, request: Request) -> None:
        """The report of one of them, as JSON or for reading."""
        name, _, file = request.path.removeprefix(RUN_PREFIX).partition("/")
        if file not in ("", _REPORT):
            raise Problem(404, "run_not_found", "There is no such run or report here; GET /v1/compare/runs lists them.")
        target = f"{RUNS_PATH}/{quote(name, safe='%')}{'/' + file if file else ''}{_for(request)}"
        await self._pass_on(request, target, headers=REPORT_HEADERS if file else {})

    async def _pass_on(
        self, request: Request, target: str, order: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        answer = await self._gateway.ask(request, "POST" if order else "GET", target, order)
        more = headers if headers is not None and answer.status == 200 else {}
        request.answer(answer.status, answer.body, answer.content_type, **{**answer.headers, **more})

    async def _seal(self, request: Request, sealed: SealedComparison) -> bool:
        """Have the supervisor keep it; a comparison without a vote is one all the same."""
        try:
            answer = await self._gateway.ask(request, "POST", SEALS_PATH, msgspec.json.encode(sealed))
        except Problem as exc:
            log.warning("blind comparison not kept", request_id=request.id, reason=exc.message)
            return False
        return answer.status == 200


def _for(request: Request) -> str:
    """The query that shows the supervisor which names the key opens; nothing where it opens all."""
    key = request.key
    if key is None or key.models is None:
        return ""
    patterns: Any = [("model", pattern) for pattern in key.models]
    return f"?{urlencode(patterns)}"
