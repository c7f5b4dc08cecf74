"""The walls of the house: what the data path and the engines' side may know, and how large a room may be."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

FILES = sorted(path for package in ("app", "backends") for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 400
MAX_FUNCTION_LINES = 60

DATA_PATH = (
    "app.relay",
    "app.dialects",
    "app.table",
    "app.routing",
    "app.keys",
    "app.errors",
    "app.metrics",
    "app.ipc",
    "backends.endpoint",
    "backends.errors",
    "backends.http.connection",
    "backends.http.exchange",
    "backends.http.pool",
    "backends.ollama.response",
    "backends.ollama.exchange",
    "backends.ollama.failures",
    "backends.ollama.messages",
    "backends.ollama.names",
    "backends.ollama.request",
    "backends.ollama.stream",
)
FORBIDDEN = (
    "fastapi",
    "pydantic",
    "app.cli",
    "app.config",
    "app.supervisor",
    "backends.config",
    "backends.huggingface",
    "backends.kinds",
    "backends.lifecycle",
    "backends.llama_cpp",
    "backends.ollama.config",
    "backends.ollama.engine",
    "backends.ollama.facts",
    "backends.process",
    "backends.remote",
    "backends.vllm",
)
HOMELESS = {"utils", "util", "helpers", "common", "manager", "misc"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports anywhere in it, also inside functions; those for type checkers only are left out."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = {name_of(path): path for path in FILES}
DATA_MODULES = sorted(name for name in MODULES if is_in(name, DATA_PATH))


def test_the_data_path_is_all_there() -> None:
    assert {package for package in DATA_PATH if package not in MODULES} == set()
    assert len(DATA_MODULES) > 20


@pytest.mark.parametrize("name", DATA_MODULES)
def test_no_file_of_the_data_path_names_what_runs_engines(name: str) -> None:
    assert [module for module in imports(MODULES[name]) if is_in(module, FORBIDDEN)] == []


def test_nothing_the_data_path_imports_leads_to_what_runs_engines() -> None:
    code = (
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    names = json.dumps([name for name in DATA_MODULES if not name.endswith("__main__")])

    done = subprocess.run([sys.executable, "-c", code, names], cwd=ROOT, capture_output=True, check=True, text=True)

    loaded = json.loads(done.stdout)
    assert set(json.loads(names)) <= set(loaded)
    assert [module for module in loaded if is_in(module, FORBIDDEN)] == []


@pytest.mark.parametrize("name", sorted(name for name in MODULES if is_in(name, ("backends",))))
def test_the_engines_side_knows_nothing_of_clients(name: str) -> None:
    assert [module for module in imports(MODULES[name]) if is_in(module, ("app", "fastapi", "uvicorn"))] == []


def test_the_guard_needs_nothing_but_the_standard_library() -> None:
    found = {module.partition(".")[0] for module in imports(MODULES["backends.process.guard"])}

    assert found <= sys.stdlib_module_names


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_read_in_one_sitting(path: Path) -> None:
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    sizes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}

    assert len(path.read_text().splitlines()) <= MAX_LINES
    assert {name: size for name, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_says_what_it_is_for_and_has_a_home(path: Path) -> None:
    source = path.read_text()

    assert path.stem not in HOMELESS
    assert not source.strip() or ast.get_docstring(ast.parse(source))
