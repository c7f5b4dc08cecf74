"""The page as it is committed: small, its own, and made of nothing that could run what a model writes."""

from __future__ import annotations

import gzip
import json
import re

from tests import ROOT

PAGE = ROOT / "app" / "page"
BUILT = PAGE / "built"
SOURCES = sorted(path for path in (PAGE / "src").rglob("*") if path.suffix in (".ts", ".tsx", ".css", ".html", ".svg"))
MAX_BYTES = 50_000
MAX_LINES = 400
# Ways from a text to markup or code. The policy forbids them; the sources do not ask for them.
DANGEROUS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|document\.write|\beval\b|new Function|DOMParser"
    r"|createContextualFragment|setHTMLUnsafe|srcdoc"
)


def test_all_that_the_page_loads_is_at_most_50_kb_compressed() -> None:
    loaded = [path for path in BUILT.iterdir() if path.suffix != ".txt"]

    assert {path.name for path in loaded} == {"app.css", "app.js", "icon.svg", "index.html"}
    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in loaded) <= MAX_BYTES


def test_the_page_names_no_address_but_those_of_the_gateway() -> None:
    addresses = {
        each for path in BUILT.glob("*.*s*") for each in re.findall(r"https?://[a-z][\w.-]+", path.read_text())
    }

    assert addresses <= {"http://www.w3.org"}  # the name of SVG; nothing is fetched from there


def test_no_source_turns_text_into_markup_or_code() -> None:
    assert len(SOURCES) > 30
    assert [path.name for path in SOURCES if DANGEROUS.search(path.read_text())] == []


def test_a_source_is_read_in_one_sitting_and_says_what_it_is_for() -> None:
    texts = {path.name: path.read_text() for path in SOURCES if path.suffix in (".ts", ".tsx")}

    assert {name for name, text in texts.items() if len(text.splitlines()) > MAX_LINES} == set()
    assert {name for name, text in texts.items() if not text.startswith("// ")} == set()


def test_what_is_bundled_comes_with_its_licence() -> None:
    bundled = json.loads((PAGE / "package.json").read_text())["dependencies"]
    licences = (BUILT / "licences.txt").read_text()

    assert {name for name in bundled if f"{name} " not in licences} == set()


def test_the_lock_file_holds_names_versions_and_hashes_and_no_address() -> None:
    text = (PAGE / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]

    assert "://" not in re.sub(r'"url": "https://[^"]*"', "", text)
    assert [name for name, each in packages.items() if name and not each["integrity"].startswith("sha512-")] == []
