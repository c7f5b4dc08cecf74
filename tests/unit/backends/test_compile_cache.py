"""What engines compile is kept by version, and not for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backends.process import compile_cache


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A `vllm` in an environment of its own."""
    packages = tmp_path / "env/lib/python3.11/site-packages"
    (packages / "vllm-0.32.0.dist-info").mkdir(parents=True)
    (packages / "torch-2.13.0.dist-info").mkdir()
    (packages / "requests-1.0.dist-info").mkdir()
    (tmp_path / "env/bin").mkdir()
    (tmp_path / "env/bin/vllm").touch(mode=0o755)
    return tmp_path / "env/bin/vllm"


def test_the_next_start_of_the_same_version_finds_what_was_compiled(tmp_path: Path, program: Path) -> None:
    first = compile_cache.variables(tmp_path / "state", program)
    program.touch()  # installed anew, the same releases
    second = compile_cache.variables(tmp_path / "state", program)

    assert first == second
    assert set(first) == {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "VLLM_CACHE_ROOT"}
    assert all(Path(folder).is_dir() for folder in first.values())


@pytest.mark.parametrize("release", ["vllm-0.32.0", "torch-2.13.0"])
def test_another_release_begins_anew(tmp_path: Path, program: Path, release: str) -> None:
    first = compile_cache.variables(tmp_path / "state", program)

    [info] = tmp_path.glob(f"env/lib/python3.11/site-packages/{release}.dist-info")
    info.rename(info.with_name(f"{release}.1.dist-info"))

    assert compile_cache.variables(tmp_path / "state", program)["VLLM_CACHE_ROOT"] != first["VLLM_CACHE_ROOT"]


def test_a_release_of_what_compiles_nothing_changes_nothing(tmp_path: Path, program: Path) -> None:
    first = compile_cache.variables(tmp_path / "state", program)

    (tmp_path / "env/lib/python3.11/site-packages/requests-1.0.dist-info").rmdir()

    assert compile_cache.variables(tmp_path / "state", program) == first


def test_a_program_that_shows_no_environment_is_its_own_version(tmp_path: Path) -> None:
    script = tmp_path / "elsewhere"
    script.write_text("one")
    first = compile_cache.variables(tmp_path / "state", script)
    same = compile_cache.variables(tmp_path / "state", script)

    script.write_text("another one")

    assert same == first
    assert compile_cache.variables(tmp_path / "state", script) != first


def test_only_the_versions_that_were_started_last_stay(tmp_path: Path) -> None:
    for age, name in enumerate(("d", "a", "c", "b", "e")):
        (tmp_path / name / "triton").mkdir(parents=True)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))

    compile_cache.prune(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c", "d"]
    compile_cache.prune(tmp_path / "nowhere")


def test_where_nothing_can_be_kept_no_variable_is_set(tmp_path: Path, program: Path) -> None:
    (tmp_path / "file").touch()

    assert compile_cache.variables(tmp_path / "file", program) == {}


def test_a_disk_that_is_nearly_full_keeps_nothing(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_cache, "ROOM_BYTES", 2**80)

    assert compile_cache.variables(tmp_path / "state", program) == {}
