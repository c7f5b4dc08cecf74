"""Sums of usage as CSV. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

COLUMNS: Final = (
    *("name", "requests", "failed"),
    *("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "money"),
)
# With which a spreadsheet takes a text for a formula.
_FORMULA: Final = ("=", "+", "-", "@")
# The module `csv` does not quote every one of them, and a lone carriage return begins a row in a spreadsheet.
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def csv_text(by: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of an answer of `/admin/usage`, below a line with the names of the columns."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((by, *COLUMNS[1:]))
    for row in rows:
        writer.writerow([_plain(row[column]) for column in COLUMNS])
    return out.getvalue()


def _plain(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = _CONTROLS.sub(" ", value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
