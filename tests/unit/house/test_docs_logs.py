"""docs/operate.md names every line of the log, and each field of a request's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.rigs.pages import page
from tests.unit.house.test_architecture import FILES

LEVELS = {"info", "warning", "error", "critical", "exception"}


def calls() -> Iterator[tuple[ast.Call, list[str]]]:
    """Each call of a logger that is no detail for developers, with the events that it may write."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and _is_log(node.func):
                parts = ast.walk(node.args[0])
                yield node, [part.value for part in parts if isinstance(part, ast.Constant) and type(part.value) is str]


def _is_log(func: ast.expr) -> bool:
    match func:
        case ast.Attribute(value=ast.Name(id="log"), attr=level):
            return level in LEVELS
        case ast.IfExp(body=chosen):
            return _is_log(chosen)
    return False


def told(heading: str) -> list[str]:
    """What stands in code type in the first cell of each row."""
    rows = [line for line in page("docs/operate.md").sections[heading].splitlines() if line.startswith("| `")]
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


def test_every_event_of_the_log_is_in_the_table_and_no_other() -> None:
    events = {event for _, each in calls() for event in each} - {"request", "request failed", "request refused"}
    listed = told("Other lines")
    begun = [name.removesuffix("…").strip() for name in listed if name.endswith("…")]

    assert {event for event in events if event not in listed and not event.startswith(tuple(begun))} == set()
    known = [name for name in listed if not name.endswith("…")]
    assert {name for name in known if name not in events} == set()


def test_every_field_of_a_requests_line_is_told() -> None:
    (line,) = [call for call, events in calls() if "request failed" in events]

    assert [keyword.arg for keyword in line.keywords] == told("Lines of requests")
