"""Numbers with their nouns."""

from __future__ import annotations

from app.cli.tables import number_of


def test_one_is_singular_and_all_else_is_not() -> None:
    assert [number_of(count, "record") for count in (0, 1, 2, 2000)] == [
        "0 records",
        "1 record",
        "2 records",
        "2,000 records",
    ]
