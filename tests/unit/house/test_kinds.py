"""A new kind of engine is one folder and one line: nothing else in the house names a kind."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from app.config.load import loads
from app.table import Backend
from backends import kinds
from backends.endpoint import State
from backends.engine import Engine
from backends.engine_profile import UNKNOWN, EngineProfile
from backends.kinds import FOLDERS, PROFILES
from tests import ROOT
from tests.fakes.engine import FakeEngine
from tests.rigs.relay import Rig, models, running
from tests.unit.house.test_architecture import imports, is_in, name_of

# An operator's own words, and what checks and shows them.
FOR_OPERATORS = ("app.config", "app.cli", "app.llamafactory")
FILES = [path for path in sorted((ROOT / "app").rglob("*.py")) if not is_in(name_of(path), FOR_OPERATORS)]
# Ollama's API is one that clients speak, whatever the engine: which pages may, and how its routes are described.
CLIENT_APIS = {"app.relay.http.origin_check": {"ollama"}, "app.supervisor.admin.openapi_routes": {"ollama"}}
# What speaks the daemon's own API names its translation, by the dialect of the endpoint.
TRANSLATION = ("exchange", "failures", "names", "request", "response", "stream")
# A GGUF file is a format that several kinds serve and commands make, and llama.cpp's library is what reads its weights.
FORMATS = (
    *("backends.llama_cpp.gguf_header", "backends.llama_cpp.gguf_contents"),
    "backends.llama_cpp.likelihood.library",
)

MESSAGE = {"role": "user", "content": "Hi"}
LINE = ("fifth", "tests.fakes.fifth_kind")


def literals(path: Path) -> Iterator[str]:
    """The texts in a file's code; docstrings are no code."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_names_a_kind_of_engine(path: Path) -> None:
    assert FOLDERS.keys() & set(literals(path)) <= CLIENT_APIS.get(name_of(path), set())


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_knows_the_folder_of_a_kind_but_for_the_translation_of_ollamas_api(path: Path) -> None:
    allowed = (*FORMATS, *(f"backends.ollama.{module}" for module in TRANSLATION))
    known = {module for module in imports(path) if is_in(module, tuple(FOLDERS.values()))}

    assert [name for name in sorted(known) if name != "backends.ollama" and not is_in(name, allowed)] == []


@pytest.mark.parametrize("kind", FOLDERS)
def test_each_kind_has_what_its_folder_promises(kind: str) -> None:
    assert isinstance(PROFILES[kind], EngineProfile)
    assert PROFILES[kind].kind == kind
    assert kinds.engine_kind(kind).config.model_fields["kind"].is_required()


def test_a_kind_that_does_not_exist_is_treated_as_somebody_elses_engine() -> None:
    assert Backend("b", "no-such-kind", State.READY).profile is UNKNOWN


# -- a fifth kind


@pytest.fixture
def one_line() -> Iterator[None]:
    """The line of backends/kinds.py."""
    kind, folder = LINE
    FOLDERS[kind] = folder
    yield
    del FOLDERS[kind]
    PROFILES.pop(kind, None)


def made(url: str) -> tuple[str, Engine]:
    """The kind and the engine that the supervisor makes of a fifth kind's configuration."""
    config = kinds.engine_kind("fifth").config.model_validate({"kind": "fifth", "url": url})
    return kinds.kind_of(config), kinds.engine("box", config)


@pytest_asyncio.fixture
async def fake(one_line: None) -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as engine:
        yield engine


@pytest_asyncio.fixture
async def rig(fake: FakeEngine) -> AsyncIterator[Rig]:
    kind, engine = made(fake.url)
    endpoint = engine.endpoint(1, 0, "")
    probe = await engine.probe(endpoint)
    row = Backend("box", kind, State.READY, endpoint=endpoint, models=probe.models, is_strict=engine.is_strict)
    async with running({"box": row}, models("public", backend="box", engine_name="fake")) as gateway:
        yield gateway


async def test_a_fifth_kind_serves_requests(rig: Rig, fake: FakeEngine) -> None:
    reply = await rig.ask(body={"model": "public", "messages": [MESSAGE], "logit_bias": {"7": -100}, "user": "me"})
    listed = await rig.ask("/v1/models")

    assert (reply.status, reply.json["model"]) == (200, "public")
    assert json.loads(fake.posts[0].body) == {"model": "fake", "messages": [MESSAGE], "token_bias": {"7": -100}}
    assert reply.headers["x-modelport-adjusted-params"] == "logit_bias"
    assert reply.headers["x-modelport-dropped-params"] == "user"
    assert listed.json["data"][0]["owned_by"] == "fifth"


async def test_a_fifth_kind_is_told_of_other_dialects_parameters_in_its_words(rig: Rig, fake: FakeEngine) -> None:
    asked = {"model": "public", "messages": [MESSAGE], "stream": False, "options": {"top_k": 3, "min_p": 0.1}}

    reply = await rig.ask("/api/chat", asked)

    assert reply.status == 200
    assert json.loads(fake.posts[0].body)["top_tokens"] == 3
    assert reply.headers["x-modelport-dropped-params"] == "min_p"


async def test_what_a_fifth_kind_cannot_do_is_said_in_its_words(rig: Rig, fake: FakeEngine) -> None:
    reply = await rig.ask("/v1/rerank", {"model": "public", "query": "a", "documents": ["b"]})

    assert (reply.status, reply.error["code"]) == (400, "not_supported")
    assert "What its engine can do (fifth): chats." in reply.error["message"]
    assert fake.posts == []


async def test_a_fifth_kind_of_this_machine_gets_no_request_of_a_wrong_shape(rig: Rig, fake: FakeEngine) -> None:
    reply = await rig.ask(body={"model": "public", "messages": [MESSAGE], "stop": 7})

    assert reply.status == 400
    assert fake.posts == []


def test_a_fifth_kind_can_be_written_in_the_configuration() -> None:
    code = (
        "import sys\n"
        "from backends import kinds\n"
        f"kinds.FOLDERS[{LINE[0]!r}] = {LINE[1]!r}\n"
        "from app.config.load import loads\n"
        "config = loads(sys.argv[1], {}, source='file').backends['box']\n"
        "print(kinds.kind_of(config), kinds.engine('box', config).endpoint(1, 0, '').address)\n"
    )
    text = 'backends: {box: {kind: fifth, url: "http://127.0.0.1:1/v1"}}\nmodels: {m: {backend: box}}'

    done = subprocess.run([sys.executable, "-c", code, text], cwd=ROOT, capture_output=True, check=True, text=True)

    assert done.stdout.split() == ["fifth", "http://127.0.0.1:1/v1"]
    with pytest.raises(Exception, match="'fifth' is not a kind of backend"):
        loads(text, {}, source="file")
