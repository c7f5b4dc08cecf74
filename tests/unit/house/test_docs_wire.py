"""The table of broken streams in the documentation is the one that is tested."""

from __future__ import annotations

import re

from tests import ROOT
from tests.fakes.shapes import SHAPES

WIRE = ROOT / "docs" / "wire.md"


def test_the_table_of_broken_streams_has_every_one_and_what_becomes_of_it() -> None:
    section = WIRE.read_text().partition("## Streams that engines write wrongly")[2].partition("\n## ")[0]

    rows = re.findall(r"^\| (.+) \| (.+) \|$", section, re.MULTILINE)[1:]
    assert rows == [(shape.sends, shape.gets) for shape in SHAPES.values()]
