"""The page comes as it was built, to browsers only, under a policy that lets it load nothing else."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.keys import digest
from app.relay.routes.page_files import BUILT, INDEX, PageFiles, prefers_page
from app.table import Key
from tests.rigs.raw_client import Reply, ask
from tests.rigs.relay import Rig, running

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
NAME = PageFiles().names[0]


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running({}, {}) as gateway:
        yield gateway


async def page(rig: Rig, path: str = "/", **headers: str) -> Reply:
    return await rig.ask(path, headers={"accept": BROWSER, **headers})


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("TEXT/HTML;q=0.9, */*;q=0.8", True),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html;q=0", False),
        ("text/html;q=0.5, text/plain", False),
        ("text/html;q=nonsense", False),
        (",;", False),
    ],
)
def test_the_page_is_for_those_who_prefer_html_to_plain_text(accept: str, is_page: bool) -> None:
    assert prefers_page(accept) is is_page


async def test_a_browser_gets_the_page_and_ollamas_clients_what_they_wait_for(rig: Rig) -> None:
    shown, plain = await page(rig), await rig.ask("/")

    assert (shown.status, shown.body) == (200, (BUILT / INDEX).read_bytes())
    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    assert plain.body == b"Ollama is running"
    assert "accept" in shown.headers["vary"]
    assert "accept" in plain.headers["vary"]


async def test_the_page_needs_no_key_and_its_files_neither(rig: Rig) -> None:
    await rig.published(keys=(Key("office", digest("mp-secret")),))

    assert (await page(rig)).status == 200
    assert (await page(rig, f"/page/{NAME}")).body == (BUILT / NAME).read_bytes()


async def test_the_policy_lets_the_page_load_its_own_files_only(rig: Rig) -> None:
    for path in ("/", f"/page/{NAME}"):
        headers = (await page(rig, path)).headers

        assert headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
            "require-trusted-types-for 'script'; trusted-types 'none'"
        )
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"


async def test_who_has_a_file_is_told_that_it_is_the_same(rig: Rig) -> None:
    first = await page(rig, f"/page/{NAME}")

    for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
        again = await page(rig, f"/page/{NAME}", **{"if-none-match": known})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert (await page(rig, f"/page/{NAME}", **{"if-none-match": '"other"'})).status == 200


async def test_a_file_comes_compressed_to_those_who_take_it(rig: Rig) -> None:
    packed = await page(rig, **{"accept-encoding": "gzip, deflate, br"})
    plain = await page(rig, **{"accept-encoding": "gzip;q=0, br"})

    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert packed.headers["etag"] == f"W/{plain.headers['etag']}"
    assert "content-encoding" not in plain.headers


async def test_a_head_has_the_length_and_no_body(rig: Rig) -> None:
    reply = await ask(rig.url, "HEAD", f"/page/{NAME}")

    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["content-length"] == str((BUILT / NAME).stat().st_size)


@pytest.mark.parametrize(
    "path", ["../page_files.py", "%2e%2e/%2e%2e/table.py", "..%2f..%2ftable.py", "/etc/passwd", "index.html", "x", "."]
)
async def test_no_path_leads_out_of_the_folder(rig: Rig, path: str) -> None:
    reply = await page(rig, f"/page/{path}")

    assert (reply.status, reply.error["code"]) == (404, "route_not_found")


def test_a_page_that_was_not_built_has_no_files() -> None:
    files = PageFiles(BUILT / "nowhere")

    assert (files.is_built, files.names) == (False, [])
