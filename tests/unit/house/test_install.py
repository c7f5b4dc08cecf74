"""The environments that the Makefile makes: what others release later changes none of them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests import ROOT
from tests.unit.house.test_architecture import FILES, imports
from tests.unit.house.test_packaging import canonical, pins

OURS = {"app", "backends"}
LOCKS = {
    "requirements.lock": "runtime",
    "requirements-dev.lock": "dev",
    "requirements-demo.lock": "demo",
    "requirements-clients.lock": "clients",
}


def wheel(folder: Path, name: str, version: str, needs: Sequence[str] = (), extras: Sequence[str] = ()) -> str:
    """Write a package that holds nothing; its sha256."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    described = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    described += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {need}" for need in needs]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(described) + "\n")
        archive.writestr(
            f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{name}-{version}.dist-info/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the Makefile and lock files of two small packages each, and an index that has released more since.

    The first asks for an extra of the second in a version that the lock file has no hash for, and for a third that it
    does not name at all: what a complete lock file looks like to pip after others have gone on.
    """
    index = tmp_path / "index"
    index.mkdir()
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for lock, name in LOCKS.items():
        first = wheel(index, f"{name}_first", "1.0", [f"{name}_second[more]>=2", f"{name}_third"])
        second = wheel(index, f"{name}_second", "1.0", extras=["more"])
        wheel(index, f"{name}_first", "2.0")
        wheel(index, f"{name}_second", "2.0", extras=["more"])
        wheel(index, f"{name}_third", "1.0")
        (tmp_path / lock).write_text(
            f"{name}_first==1.0 \\\n    --hash=sha256:{first}\n{name}_second==1.0 \\\n    --hash=sha256:{second}\n"
        )
    return tmp_path


def test_lock_files_are_installed_as_they_are_whatever_has_been_released_since(clone: Path) -> None:
    wanted = [".venv/.done/dev", ".venv/.done/demo", f"{clone}/build/clients/.done"]
    only = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(clone / "index")}
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE"))}

    made = subprocess.run(
        ["make", *wanted, f"PYTHON={sys.executable}"], cwd=clone, env=quiet | only, capture_output=True, text=True
    )

    assert made.returncode == 0, made.stdout + made.stderr
    for environment, names in ((".venv", ("runtime", "dev", "demo")), ("build/clients", ("clients",))):
        packages = next((clone / environment).glob("lib/python3*/site-packages"))
        installed = {path.name.removesuffix(".dist-info") for path in packages.glob("*.dist-info")}
        pips = {name for name in installed if name.startswith(("pip-", "setuptools-"))}
        assert installed - pips == {f"{name}_{part}-1.0" for name in names for part in ("first", "second")}


def test_what_the_locked_packages_ask_for_is_locked() -> None:
    """Nothing looks at it while they are installed."""
    locked = pins("requirements-dev.lock")
    asked = {
        (name, needed.name, str(needed.specifier))
        for name in locked.keys()
        & {canonical(distribution.name) for distribution in importlib.metadata.distributions()}
        for needed in map(Requirement, importlib.metadata.requires(name) or ())
        if needed.marker is None or needed.marker.evaluate({"extra": ""})
    }

    assert len(asked) > 50
    missing = [each for each in asked if not is_met(locked, *each[1:])]
    assert missing == []


def is_met(locked: Mapping[str, str], name: str, specifier: str) -> bool:
    version = locked.get(canonical(name), "").partition(" ")[0]
    return version != "" and SpecifierSet(specifier).contains(version, prereleases=True)


@pytest.mark.parametrize("name", ["Makefile", "docker/Dockerfile", "tests/live/install.py"])
def test_nothing_resolves_a_lock_file_anew(name: str) -> None:
    written = re.sub(r"\\\n\s*", "", (ROOT / name).read_text())
    lines = [line for line in re.split(r"\n|&&", written) if "--require-hashes" in line]

    assert lines
    assert [line for line in lines if "--no-deps" not in line] == []


def test_whatever_is_imported_is_declared() -> None:
    """A package that comes along with another one today may not come tomorrow. What runs in a tool environment (in a
    folder `children`) finds there what that environment's lock file names.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonical(requirement) for requirement in project["dependencies"]}
    homes = importlib.metadata.packages_distributions()
    ours = [path for path in FILES if path.parent.name != "children"]
    used = {module.partition(".")[0] for path in ours for module in imports(path)}
    foreign = used - OURS - set(sys.stdlib_module_names)

    assert {"httpx2", "fastapi"} <= foreign
    assert sorted(name for name in foreign if not declared & {canonical(home) for home in homes.get(name, ())}) == []


NPM_LOCKS = sorted(
    path
    for folder in ("app", "tests")
    for path in (ROOT / folder).rglob("package-lock.json")
    if "node_modules" not in path.parts
)


@pytest.mark.parametrize("lock", NPM_LOCKS, ids=lambda path: path.relative_to(ROOT).parts[1])
def test_a_lock_file_of_npm_holds_no_address(lock: Path) -> None:
    assert {"agents", "containers", "journeys", "page"} == {path.relative_to(ROOT).parts[1] for path in NPM_LOCKS}
    assert "://" not in lock.read_text()
