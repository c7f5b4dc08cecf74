"""The relay's route table without a relay: for what only its rows say."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from app.relay.compare.compare_api import CompareApi
from app.relay.routes.foreign_apis import ForeignApis
from app.relay.routes.gateway_api import GatewayApi
from app.relay.routes.openai_api import OpenAIApi
from app.relay.routes.page_files import PageFiles
from app.relay.routes.route import RouteTable
from app.relay.routes.routes import route_table

NOTHING = cast("Any", None)


def rows_only() -> RouteTable:
    """The table; its handlers cannot be called."""
    return route_table(
        OpenAIApi(NOTHING, NOTHING),
        ForeignApis(NOTHING, NOTHING),
        GatewayApi(NOTHING, Path("control.sock")),
        CompareApi(NOTHING, NOTHING, NOTHING, NOTHING),
        PageFiles(),
    )
