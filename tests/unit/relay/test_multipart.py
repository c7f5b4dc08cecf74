"""Forms, read and written: nothing is lost, nothing is found that was not there, and every break is refused."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Problem
from app.relay.http import multipart
from app.relay.http.multipart import Form, FormPart

NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,20}(\[\])?", fullmatch=True)
FILES = st.none() | st.from_regex(r"[A-Za-z0-9 ._()+-]{1,20}", fullmatch=True)
VALUES = st.binary(max_size=60) | st.sampled_from([b"\r\n", b"--B", b"\r\n--B", b"\r\n--B--\r\n", b"\r\n--Bx", b"--"])
PIECES = st.sampled_from([b"--B", b"\r\n", b"--", b'content-disposition: form-data; name="a"', b"x", b":", b"\n"])
FRESH = "b0undary0f0urs"


def form(parts: list[tuple[str, bytes, str | None]]) -> Form:
    return Form(tuple(FormPart(name, memoryview(value), filename) for name, value, filename in parts))


def plain(form: Form) -> list[tuple[str, bytes, str | None]]:
    return [(part.name, bytes(part.value), part.filename) for part in form.parts]


PARTS = st.lists(st.tuples(NAMES, VALUES, FILES), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(PARTS)
def test_what_is_written_is_read_again(parts: list[tuple[str, bytes, str | None]]) -> None:
    body = form(parts).written(FRESH, {})

    assert plain(multipart.read(body, FRESH.encode())) == parts


@settings(max_examples=100, deadline=None)
@given(PARTS)
def test_others_read_what_we_write_as_we_do(parts: list[tuple[str, bytes, str | None]]) -> None:
    body = form(parts).written(FRESH, {})
    message = message_from_bytes(f"content-type: multipart/form-data; boundary={FRESH}\r\n\r\n".encode() + body)
    payload = message.get_payload()

    assert isinstance(payload, list)
    assert all(isinstance(part, Message) for part in payload)
    names = [part.get_param("name", header="content-disposition") for part in payload if isinstance(part, Message)]
    assert names == [name for name, _, _ in parts]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.lists(PIECES, max_size=20).map(b"".join))
def test_any_bytes_are_a_form_or_refused(body: bytes) -> None:
    try:
        form = multipart.read(body, b"B")
    except Problem:
        return
    assert plain(multipart.read(form.written(FRESH, {}), FRESH.encode())) == plain(form)


@settings(max_examples=100, deadline=None)
@given(PARTS, st.data())
def test_a_form_that_is_cut_anywhere_is_refused(
    parts: list[tuple[str, bytes, str | None]], data: st.DataObject
) -> None:
    body = form(parts).written(FRESH, {})
    at = data.draw(st.integers(0, len(body) - 5))

    with pytest.raises(Problem):
        multipart.read(body[:at], FRESH.encode())


def test_fields_that_are_set_replace_those_that_were_there() -> None:
    asked = form([("model", b"public", None), ("file", b"x", "a.wav")])

    assert plain(multipart.read(asked.written(FRESH, {"model": "engine"}), FRESH.encode())) == [
        ("file", b"x", "a.wav"),
        ("model", b"engine", None),
    ]


def test_a_file_that_calls_itself_the_model_names_none() -> None:
    assert form([("model", b"public", "model.txt")]).text("model") == ""


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data ; Boundary="a b c"', b"a b c"),
        (
            "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
            b"----WebKitFormBoundary7MA4YWxkTrZu0gW",
        ),
    ],
)
def test_a_boundary_is_found_as_clients_write_it(kind: str, boundary: bytes) -> None:
    assert multipart.boundary_of(kind) == boundary
