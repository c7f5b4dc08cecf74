"""Sums of usage as CSV."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from app.store.tables.usage import GroupUsage
from app.usage.usage_table import csv_text

ROW = asdict(GroupUsage("office, 2nd floor", "k-1", 3, 1, 100, 10, 60, 4, 0.25))


def test_there_is_a_line_for_each_row_below_the_names() -> None:
    assert csv_text("key", [ROW]) == (
        "key,requests,failed,input_tokens,cached_tokens,output_tokens,reasoning_tokens,money\n"
        '"office, 2nd floor",3,1,100,60,10,4,0.25\n'
    )


def test_no_name_is_a_formula() -> None:
    assert csv_text("model", [{**ROW, "name": "=1+1"}]).splitlines()[1].startswith("'=1+1,")
    assert csv_text("model", [{**ROW, "name": "\t =1+1"}]).splitlines()[1].startswith("'  =1+1,")


@pytest.mark.parametrize("control", ["\r", "\n", "\x0b", "\x1b", "\x85", "\u2028", "\0"])
def test_no_name_begins_a_line(control: str) -> None:
    """Behind a wildcard a client may call a model anything."""
    text = csv_text("model", [{**ROW, "name": f"any/{control}=1+1"}])

    assert len(text.splitlines()) == 2
    assert text.splitlines()[1].startswith("any/ =1+1,3,")
