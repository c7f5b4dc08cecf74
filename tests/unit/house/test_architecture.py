"""The walls of the house: what the data path and the engines' side may know, and how large a room may be."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import __version__
from backends import kinds
from tests import ROOT

FILES = sorted(path for package in ("app", "backends") for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_FILES = 13

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
    "backends.engine_profile",
    "backends.errors",
    "backends.kinds",
    "backends.http.connection",
    "backends.http.delta",
    "backends.http.exchange",
    "backends.http.pool",
    *(f"{folder}.profile" for folder in kinds.FOLDERS.values()),
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
    "opentelemetry",
    "pydantic",
    "app.cli",
    "app.config",
    "app.store",
    "app.supervisor",
    "asyncpg",
    "backends.config",
    "backends.huggingface",
    "backends.lifecycle",
    "backends.process",
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
FOLDERS = {name_of(path): path.parent for path in FILES if path.name == "__init__.py"}
# Of the engines' own folders, the data path may use what is listed above.
OF_ENGINES = {name for name in MODULES if is_in(name, tuple(kinds.FOLDERS.values()))} - {*kinds.FOLDERS.values()}
RUNS_ENGINES = (*FORBIDDEN, *sorted(name for name in OF_ENGINES if not is_in(name, DATA_PATH)))
DATA_MODULES = sorted(name for name in MODULES if is_in(name, DATA_PATH))


def test_the_data_path_is_all_there() -> None:
    assert {package for package in DATA_PATH if package not in MODULES} == set()
    assert len(DATA_MODULES) > 20


@pytest.mark.parametrize("name", DATA_MODULES)
def test_no_file_of_the_data_path_names_what_runs_engines(name: str) -> None:
    assert [module for module in imports(MODULES[name]) if is_in(module, RUNS_ENGINES)] == []


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
    assert [module for module in loaded if is_in(module, RUNS_ENGINES)] == []


@pytest.mark.parametrize("name", sorted(name for name in MODULES if is_in(name, ("backends",))))
def test_the_engines_side_knows_nothing_of_clients(name: str) -> None:
    assert [module for module in imports(MODULES[name]) if is_in(module, ("app", "fastapi", "uvicorn"))] == []


def may_import(folder: str) -> tuple[str, ...]:
    """What the folder's own docstring allows besides the folder's own files: files, and folders with all in them."""
    docstring = ast.get_docstring(ast.parse((FOLDERS[folder] / "__init__.py").read_text())) or ""
    _, said, names = docstring.partition("\n\nMay import: ")
    assert said, f"{folder}: its __init__.py does not say `May import: …`"
    assert names.endswith("."), folder
    return () if names == "nothing." else tuple(names.removesuffix(".").replace("\n", " ").split(", "))


def own_modules(path: Path) -> set[str]:
    """The modules of the house that a file imports. A folder itself has nothing to import (a test below)."""
    named = {name if name in MODULES else name.rpartition(".")[0] for name in imports(path)}
    return {name for name in named if name in MODULES and name not in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_says_what_lives_there_and_imports_what_it_says(folder: str) -> None:
    allowed = may_import(folder)
    imported = {name for path in FOLDERS[folder].glob("*.py") for name in own_modules(path)}
    own = {name for name in imported if name.rpartition(".")[0] == folder}

    assert {name for name in allowed if name not in MODULES} == set()
    assert {name for name in imported - own if not is_in(name, allowed)} == set()
    assert {name for name in allowed if not any(is_in(module, (name,)) for module in imported - own)} == set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_itself_loads_nothing(folder: str) -> None:
    body = ast.parse((FOLDERS[folder] / "__init__.py").read_text()).body

    assert [ast.unparse(statement) for statement in body[1:]] == (
        [f"__version__ = {__version__!r}"] if folder == "app" else []
    )


@pytest.mark.parametrize("folder", sorted(name for name in FOLDERS if is_in(name, DATA_PATH)))
def test_no_folder_of_the_data_path_says_that_it_may_import_what_runs_engines(folder: str) -> None:
    allowed = may_import(folder)

    assert [module for module in MODULES if is_in(module, allowed) and is_in(module, RUNS_ENGINES)] == []


@pytest.mark.parametrize("folder", sorted(set(FOLDERS) - {"app.cli"}))
def test_a_folder_is_seen_at_a_glance(folder: str) -> None:
    assert len(list(FOLDERS[folder].glob("*.py"))) <= MAX_FILES


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_that_the_code_speaks_of_is_there(path: Path) -> None:
    """By its path from the root, or by its name alone where it is in the same folder."""
    named = re.findall(r"(?<![\w/.-])(\w+\.py|(?:app|backends|bench|tests)/[\w/]+\.py)\b", path.read_text())

    assert [name for name in named if not (ROOT / name).exists() and not (path.parent / name).exists()] == []


def test_the_guard_needs_nothing_but_the_standard_library() -> None:
    imported = {module.partition(".")[0] for module in imports(MODULES["backends.process.guard"])}

    assert imported <= sys.stdlib_module_names


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


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_wait_swallows_a_cancellation(path: Path) -> None:
    """As `asyncio.wait_for` does on Python 3.11 where what it waits for comes at the same moment: `asyncio.timeout`."""
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))

    assert not any(isinstance(call, ast.Attribute) and call.attr == "wait_for" for call in calls)
