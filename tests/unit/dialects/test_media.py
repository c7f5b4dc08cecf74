"""Where pictures, sounds and files may come from."""

from __future__ import annotations

import json

import pytest

from app.dialects.validation import media

DATA = "data:image/png;base64,iVBORw0KGgo="
WEB = "https://pictures.example/cat.png"


def body_of(*parts: object, **more: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": list(parts)}], **more}).encode()


def picture(url: object) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


WHERE = "messages[0].content[0]"
REFUSED: dict[str, tuple[bytes, str]] = {
    "https": (body_of(picture(WEB)), f"{WHERE}.image_url.url"),
    "http": (body_of(picture("http://10.0.0.1/x")), f"{WHERE}.image_url.url"),
    "file": (body_of(picture("file:///etc/passwd")), f"{WHERE}.image_url.url"),
    "no scheme": (body_of(picture("//host/x")), f"{WHERE}.image_url.url"),
    "empty": (body_of(picture("")), f"{WHERE}.image_url.url"),
    "blank before data": (body_of(picture(f" {DATA}")), f"{WHERE}.image_url.url"),
    "short form": (body_of({"type": "input_image", "image_url": WEB}), f"{WHERE}.image_url"),
    "sound": (body_of({"type": "audio_url", "audio_url": {"url": WEB}}), f"{WHERE}.audio_url.url"),
    "film": (body_of({"type": "video_url", "video_url": {"url": WEB}}), f"{WHERE}.video_url.url"),
    "file's": (body_of({"type": "file", "file": {"file_url": WEB}}), f"{WHERE}.file.file_url"),
    "second": (body_of(picture(DATA), picture(WEB)), "messages[0].content[1].image_url.url"),
    "elsewhere": (json.dumps({"documents": [picture(WEB)]}).encode(), "documents[0].image_url.url"),
    "in capitals": (
        body_of({"type": "image_url", "Image_URL": {"Url": WEB}}),
        f"{WHERE}.Image_URL.Url",
    ),
    "short form in capitals": (body_of({"type": "image_url", "IMAGE_URL": WEB}), f"{WHERE}.IMAGE_URL"),
    "escaped key": (
        body_of(picture(WEB)).replace(b'"image_url":', rb'"image\u005furl":').replace(b"_url", b"_u\\u0072l"),
        f"{WHERE}.image_url.url",
    ),
}


@pytest.mark.parametrize(("body", "place"), REFUSED.values(), ids=REFUSED)
def test_what_would_have_to_be_fetched_is_refused_with_its_place(body: bytes, place: str) -> None:
    assert media.may_have(body)
    assert media.refused(body, ()) == place


TAKEN: dict[str, bytes] = {
    "data": body_of(picture(DATA)),
    "capital data": body_of(picture(DATA.replace("data", "DATA"))),
    "null": body_of(picture(None)),
    "a text that speaks of it": body_of({"type": "text", "text": '{"image_url": "https://x/y"}'}),
    "a tool's schema": body_of(tools=[{"function": {"parameters": {"image_url": "https://x"}}}]),
    "metadata": body_of(metadata={"callback_url": WEB}),
    "an address in a text": body_of({"type": "text", "text": WEB}),
}


@pytest.mark.parametrize("body", TAKEN.values(), ids=TAKEN)
def test_what_need_not_be_fetched_passes(body: bytes) -> None:
    assert not media.may_have(body) or media.refused(body, ()) is None


def test_most_bodies_are_not_even_decoded() -> None:
    assert not media.may_have(body_of({"type": "text", "text": "what is an image_url? é \u4f60"}))
    assert not media.may_have(TAKEN["a text that speaks of it"])
    assert media.may_have(rb'{"messages":"\u005f"}')


DOMAINS = [
    (WEB, True),
    ("https://PICTURES.example:8443/cat.png?x=1", True),
    ("http://pictures.example", True),
    ("https://other.example/pictures.example", False),
    ("https://sub.pictures.example/x", False),
    ("https://pictures.example@10.0.0.1/x", False),
    ("https://10.0.0.1\\@pictures.example/x", False),
    ("https://pictures.example\\.evil.example/x", False),
    ("https://pictures.example.evil.example/", False),
    ("https://pictures.example /x", False),
    ("ftp://pictures.example/x", False),
    ("file://pictures.example/etc/passwd", False),
]


@pytest.mark.parametrize(("url", "is_taken"), DOMAINS)
def test_only_the_hosts_that_the_operator_lists_may_be_asked(url: str, is_taken: bool) -> None:
    body = body_of(picture(url))

    assert (media.refused(body, {"pictures.example"}) is None) is is_taken
    assert media.refused(body, ()) is not None


def test_every_host_is_a_list_too_but_never_a_file() -> None:
    assert media.refused(body_of(picture("http://[::1]:80/x")), {"*"}) is None
    assert media.refused(body_of(picture("file:///etc/passwd")), {"*"}) is not None


def test_deep_bodies_are_read_no_deeper_than_engines_read_them() -> None:
    deep = json.dumps({"messages": [[[[[[[[[[[picture(WEB)]]]]]]]]]]]}).encode()

    assert media.refused(deep, ()) is None
