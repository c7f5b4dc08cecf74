"""HTML that is escaped by construction."""

from __future__ import annotations

import pytest

from app.comparison.report.html.markup import join, style, tag


def test_a_text_is_text_whatever_is_in_it() -> None:
    made = tag("p", "<script>alert(1)</script>", class_="\"><img src=x onerror='alert(2)'>")

    assert made.source == (
        '<p class="&quot;&gt;&lt;img src=x onerror=&#x27;alert(2)&#x27;&gt;">&lt;script&gt;alert(1)&lt;/script&gt;</p>'
    )


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("script", {}),
        ("img", {}),
        ("iframe", {}),
        ("a", {}),
        ("style", {}),
        ("p", {"onclick": "alert(1)"}),
        ("p", {"style": "background: url(//evil)"}),
        ("svg", {"href": "//evil"}),
        ("rect", {"src": "//evil"}),
        ("meta", {"http_equiv": "refresh"}),
    ],
)
def test_what_could_act_cannot_be_written(name: str, attributes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not for a report"):
        tag(name, **attributes)


def test_characters_that_a_page_cannot_hold_are_shown_as_such() -> None:
    assert join("a\x00b\ud800c\x1bd\r\ne\rf\tg").source == "a\ufffdb\ufffdc\ufffdd\ne\nf\tg"


def test_a_line_end_at_the_beginning_of_a_text_is_kept() -> None:
    assert tag("pre", "\ntext").source == "<pre>\n\ntext</pre>"


def test_a_style_sheet_cannot_end_its_element() -> None:
    with pytest.raises(ValueError, match="has no '<'"):
        style("p { } </style><script>")
