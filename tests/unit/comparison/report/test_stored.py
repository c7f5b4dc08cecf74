"""A comparison's report as JSON."""

from __future__ import annotations

import json

import pytest

from app.comparison.report.stored import UnreadableReport, as_json, from_json
from tests.unit.comparison.report.samples import report


def test_what_is_written_is_read_again() -> None:
    assert from_json(as_json(report()).encode()) == report()


def test_members_of_a_later_version_are_left_out() -> None:
    value = json.loads(as_json(report())) | {"colour": "green"}

    assert from_json(json.dumps(value).encode()) == report()


@pytest.mark.parametrize(
    ("text", "said"), [(b"[]", "not a comparison's report"), (b"{}", "not a comparison's report"), (b"\xff", "not a")]
)
def test_what_is_no_report_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(UnreadableReport, match=said):
        from_json(text)


def test_a_report_of_a_later_format_is_refused() -> None:
    value = json.loads(as_json(report())) | {"format": 99}

    with pytest.raises(UnreadableReport, match="format 99"):
        from_json(json.dumps(value).encode())
