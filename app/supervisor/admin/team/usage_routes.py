"""The route about usage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol

from fastapi import FastAPI, Query, Response
from fastapi.responses import JSONResponse

from app.errors import bad_request
from app.store.tables import usage
from app.store.tables.usage import GroupUsage, UsageBy, UsageQuestion
from app.supervisor.team.team import Team
from app.usage.periods import FORMS, moment
from app.usage.usage_table import csv_text

Answers = dict[int | str, dict[str, Any]]
# What is asked for where nothing is said.
SINCE = "30d"


class UsageApi(Protocol):
    """Where usage is kept."""

    @property
    def team(self) -> Team: ...


def add_usage_routes(app: FastAPI, api: UsageApi, refusals: Answers) -> None:
    """Add it to the admin application. `refusals`: of every route."""

    @app.get("/admin/usage", tags=["admin"], responses=refusals)
    async def used(
        by: Annotated[UsageBy, Query(description="What the sums are of.")] = "key",
        since: Annotated[str, Query(description=f"From when on: {FORMS}.")] = SINCE,
        until: Annotated[str | None, Query(description="Until when; default: now.")] = None,
        key: Annotated[str | None, Query(description="Only this key's, by name or id.")] = None,
        model: Annotated[str | None, Query(description="Only this model's.")] = None,
        team: Annotated[str | None, Query(description="Only this team's.")] = None,
        form: Annotated[Literal["json", "csv"], Query(alias="format", description="Or `csv`.")] = "json",
    ) -> Response:
        """How much was used, by key, model, day or team."""
        question = UsageQuestion(by, _moment("since", since), _moment("until", until), key, model, team)
        try:
            usage.check(question, time.time(), api.team.usage.retention_days)
        except ValueError as exc:
            raise bad_request(f"since: {exc}.", param="since") from exc
        sums = await usage.report(api.team.store, question)
        # Of ten thousand names it takes a while, in which relays wait for other things.
        return await asyncio.to_thread(_response, question, sums, api.team.usage.pending, form)


def _response(question: UsageQuestion, sums: Sequence[GroupUsage], pending: int, form: str) -> Response:
    answer = usage.answer(question, sums, pending)
    if form == "csv":
        return Response(csv_text(question.by, answer["data"]), media_type="text/csv; charset=utf-8")
    return JSONResponse(answer)


def _moment(param: str, text: str | None) -> float | None:
    try:
        return moment(text, time.time()) if text is not None else None
    except ValueError as exc:
        raise bad_request(f"{param}: {exc}.", param=param) from exc
