"""app/reference/served.py: what is served where a template can be said whole, without tools, or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from app.reference.served import WITH_TOOLS, first, served
from app.reference.tool_formats import NotExpressible
from tests import ROOT

RECORDED = ROOT / "tests/recorded/llamafactory"
DESCRIBED: dict[str, Any] = json.loads((RECORDED / "templates.json").read_text())["default"]
EXPECTED: dict[str, str] = json.loads((RECORDED / "prompts.json").read_text())["default"]
REFUSES = "raise_exception('this model"


def rendering(*wrong: str, refused: Mapping[str, str] | None = None) -> Any:
    """An engine that says what is expected, but for these chats; a template that refuses tools does so."""

    def render(source: str) -> Mapping[str, Any]:
        refuses = {**(refused or {}), **(dict.fromkeys(WITH_TOOLS, "no tools") if REFUSES in source else {})}
        said = {name: text + "!" * (name in wrong) for name, text in EXPECTED.items() if name not in refuses}
        return {"rendered": said, "refused": refuses}

    return render


def test_a_template_that_says_everything_is_served_with_tools() -> None:
    source, lost = served(DESCRIBED, EXPECTED, rendering())

    assert lost == {}
    assert REFUSES not in source


def test_where_only_tools_differ_they_are_refused_and_the_difference_is_told() -> None:
    source, lost = served(DESCRIBED, EXPECTED, rendering("tools"))

    assert REFUSES in source
    assert list(lost) == ["tools"]
    assert str(first(lost)).startswith("in the chat 'tools' at character ")


def test_where_tools_cannot_be_said_the_rest_is_served() -> None:
    described = json.loads(json.dumps(DESCRIBED))
    described["formats"]["tools"]["tool_format"] = "tomorrows"

    source, lost = served(described, EXPECTED, rendering())

    assert REFUSES in source
    assert set(lost) == WITH_TOOLS
    assert set(lost.values()) == {"its tool format 'tomorrows' is not known here"}


def test_where_a_chat_without_tools_differs_nothing_is_served() -> None:
    with pytest.raises(NotExpressible, match="in the chat 'system' at character"):
        served(DESCRIBED, EXPECTED, rendering("system", "tools"))


def test_a_refused_chat_is_a_difference() -> None:
    with pytest.raises(NotExpressible, match="in the chat 'emoji' it is refused: no emoji"):
        served(DESCRIBED, EXPECTED, rendering(refused={"emoji": "no emoji"}))


def test_a_kind_of_template_that_is_not_known_is_not_served() -> None:
    with pytest.raises(NotExpressible, match="of a kind that is not known here"):
        served(DESCRIBED | {"classes": ["Tomorrows"]}, EXPECTED, rendering())
