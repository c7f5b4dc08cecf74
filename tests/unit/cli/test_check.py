"""`modelport check`, `version`, and what every verb has in common."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app import __version__
from app.config.json_schema import text
from tests import ROOT
from tests.rigs.cli import run

BAD = "server: {prot: 1}\nbackends: {x: {kind: llama_cpp, model: m}}\nmodels: {a: {backend: y}}\n"

VERBS = ("serve", "check", "init", "add", "models", "status", "logs", "reload", "keys new")


def test_the_version_is_printed(tmp_path: Path) -> None:
    assert run(tmp_path, "version").out == f"modelport {__version__}\n"
    assert json.loads(run(tmp_path, "version", "--json").out) == {"version": __version__}


def test_every_verb_is_listed_with_the_exit_codes(tmp_path: Path) -> None:
    said = run(tmp_path, "--help").out

    for verb in (*VERBS, "version", "start", "stop", "restart"):
        assert f" {verb.split()[0]} " in said
    assert "Exit codes: 0 done" in said


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(tmp_path: Path, verb: str) -> None:
    ended = run(tmp_path, *verb.split(), "--help")

    assert ended.code == 0
    assert f"Usage: modelport {verb}" in ended.out


def test_the_verbs_are_there_quickly_because_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys, app.__main__ as m; m.cli(); "
        "print(sorted({'pydantic', 'fastapi', 'httpx', 'ruamel.yaml', 'uvicorn', 'msgspec'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "[]"


def test_a_good_file_is_all_right(tmp_path: Path) -> None:
    (tmp_path / "modelport.yaml").write_text("backends: {o: {kind: ollama}}\nmodels: {a: {backend: o}}\n")

    ended = run(tmp_path, "check")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "modelport.yaml: all right (models: 1, backends: 1, keys: 0)\n"


def test_without_a_file_the_defaults_are_checked(tmp_path: Path) -> None:
    ended = run(tmp_path, "check")

    assert ended.code == 0
    assert ended.out.startswith("No file: the defaults: all right")


def test_a_bad_file_shows_all_its_errors_and_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)

    ended = run(tmp_path, "check", "--config", "bad.yaml")

    assert (ended.code, ended.out) == (2, "")
    assert [line.split(": ")[1] for line in ended.err.splitlines()] == ["server.prot", "models.a.backend"]


def test_the_file_is_also_named_by_the_environment(tmp_path: Path) -> None:
    ended = run(tmp_path, "check", MODELPORT_CONFIG="none.yaml")

    assert (ended.code, ended.err) == (2, "none.yaml: cannot be read: No such file or directory\n")


def test_a_bad_environment_ends_with_2(tmp_path: Path) -> None:
    ended = run(tmp_path, "check", API_PORT="x", API_KEY="mp-secret key")

    assert (ended.code, ended.err) == (2, "environment: API_PORT: 'x' is not a whole number\n")


def test_streams_that_can_go_on_nowhere_are_a_warning(tmp_path: Path) -> None:
    (tmp_path / "modelport.yaml").write_text(
        "backends:\n  one: {kind: vllm, model: m}\n  two: {kind: vllm, model: m, replicas: 2}\n"
        "  daemon: {kind: ollama}\nmodels:\n  a: {backend: one, continue_streams: true}\n"
        "  b: {backend: two, continue_streams: true}\n"
        "  c: {targets: [{backend: one, model: m}, {backend: daemon, model: m}], continue_streams: true}\n"
    )

    warnings = json.loads(run(tmp_path, "check", "--json").out)["warnings"]

    named = [each.partition(":")[0] for each in warnings if "has no effect" in each]
    assert named == ["models.a.continue_streams", "models.c.continue_streams"]


def test_a_route_among_one_engine_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "modelport.yaml").write_text(
        "backends:\n  one: {kind: vllm, model: /m}\n  two: {kind: vllm, model: /m, replicas: 2}\n"
        '  pods: {kind: remote, url: "http://pods/v1", addresses: dns}\n'
        '  urls: {kind: remote, urls: ["http://a/v1", "http://b/v1"]}\n'
        "models:\n  a: {backend: one, route: prefix}\n  b: {backend: two, route: session}\n"
        "  c: {backend: pods, route: prefix}\n  d: {backend: urls, route: prefix}\n"
        "  e: {backend: one, model: m, route: least_busy}\n"
        "  f: {targets: [{backend: one}, {backend: two}], route: prefix}\n"
    )

    warnings = json.loads(run(tmp_path, "check", "--json").out)["warnings"]

    named = [each.partition(":")[0] for each in warnings if "one engine to choose" in each]
    assert named == ["models.a.route"]


def test_what_is_legal_and_probably_not_meant_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "modelport.yaml").write_text(
        "backends:\n  f: {kind: llama_cpp, model: none.gguf}\n  p: {kind: llama_cpp, model: package:no-such-thing}\n"
        "  unused: {kind: ollama}\nmodels: {a: {targets: [{backend: f}, {backend: p}]}}\n"
    )

    ended = run(tmp_path, "check")
    listed = json.loads(run(tmp_path, "check", "--json").out)

    assert ended.code == 0
    assert ended.err.splitlines() == [f"modelport.yaml: {warning}" for warning in listed["warnings"]]
    assert listed == {
        "file": "modelport.yaml",
        "models": ["a"],
        "backends": ["f", "p", "unused"],
        "warnings": [
            "backends.unused: no model uses it",
            "backends.f.model: 'none.gguf' is not a file here",
            "backends.p.model: the package 'no-such-thing' is not installed",
        ],
    }


def test_the_schema_can_be_printed(tmp_path: Path) -> None:
    assert run(tmp_path, "check", "--schema").out == text()


def test_other_machines_need_a_key_here_too(tmp_path: Path) -> None:
    assert run(tmp_path, "check", API_HOST="0.0.0.0").code == 2
    assert run(tmp_path, "check", "--insecure-no-key", API_HOST="0.0.0.0").code == 0


def test_a_start_with_a_bad_environment_ends_with_2(tmp_path: Path) -> None:
    ended = run(tmp_path, "serve", API_PORT="x")

    assert (ended.code, ended.err) == (2, "environment: API_PORT: 'x' is not a whole number\n")


def test_a_start_with_too_long_a_state_folder_ends_with_2(tmp_path: Path) -> None:
    ended = run(tmp_path, "serve", "--state", "/tmp/" + "x" * 120)

    assert ended.code == 2
    assert "too long for a Unix socket" in ended.err


def test_a_start_with_a_bad_file_shows_all_its_errors_and_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "modelport.yaml").write_text(BAD)

    ended = run(tmp_path, "serve", "--state", "/tmp/modelport-never-made")

    assert (ended.code, ended.out) == (2, "")
    assert [line.split(": ")[1] for line in ended.err.splitlines()] == ["server.prot", "models.a.backend"]
    assert not Path("/tmp/modelport-never-made").exists()


def test_a_backend_with_adapters_is_used_by_their_names(tmp_path: Path) -> None:
    backends = "backends: {g: {kind: vllm, model: org/base, adapters: {law: org/law}}, o: {kind: ollama}}"
    (tmp_path / "modelport.yaml").write_text(f"{backends}\nmodels: {{a: {{backend: o}}}}\n")

    warnings = json.loads(run(tmp_path, "check", "--json").out)["warnings"]

    assert [each for each in warnings if "no model uses it" in each] == []
