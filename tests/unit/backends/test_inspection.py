"""What each kind says there is to look at on a machine before it is relied on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backends.inspection import Inspection
from backends.kinds import FOLDERS, engine_kind, preflight
from backends.vllm.preflight import flaw


def inspected(kind: str, **settings: Any) -> Inspection:
    return preflight(engine_kind(kind).config.model_validate({"kind": kind, **settings})).inspection()


def test_vllm_is_a_program_that_is_sought_where_its_engine_would_be() -> None:
    seen = inspected("vllm", model="/models/x", command="/opt/vllm/bin/vllm", env={"PATH": "/opt/bin"})

    assert (seen.program, seen.search, seen.version_words, seen.package) == (
        "/opt/vllm/bin/vllm",
        "/opt/bin",
        ("--version",),
        "vllm",
    )
    assert (seen.hub, seen.env) == ((), {"PATH": "/opt/bin"})
    assert [library.package for library in seen.libraries] == ["libnuma1"]


def test_a_program_that_is_called_through_another_is_asked_in_the_same_way() -> None:
    seen = inspected("vllm", model="/models/x", command="uv run vllm")

    assert (seen.program, seen.version_words) == ("uv", ("run", "vllm", "--version"))


def test_models_and_adapters_of_the_hub_are_named_once_and_folders_are_not(tmp_path: Path) -> None:
    adapters = {"a": "org/lora", "b": {"path": "org/lora"}, "c": str(tmp_path)}

    assert inspected("vllm", model="org/model", adapters=adapters).hub == ("org/model", "org/lora")
    assert inspected("vllm", model=str(tmp_path)).hub == ()
    assert inspected("vllm", model="org/model", env={"VLLM_USE_MODELSCOPE": "True"}).hub == ()


def test_a_token_of_the_hub_steers_only_an_engine_that_takes_something_from_there() -> None:
    assert "HF_TOKEN" in inspected("vllm", model="org/model").variables
    assert inspected("vllm", model="/models/x").variables == ("VLLM_", "NCCL_")


def test_a_daemon_has_a_program_here_only_where_we_run_it() -> None:
    assert inspected("ollama") == Inspection()
    seen = inspected("ollama", managed=True, command="/opt/ollama")
    assert (seen.program, seen.variables) == ("/opt/ollama", ("OLLAMA_",))
    assert "CVE-2026-7482" in (seen.flaw("0.17.0") or "")
    assert seen.flaw("0.35.0") is None


def test_the_embedded_engine_is_a_module_with_its_library_and_its_processor() -> None:
    seen = inspected("llama_cpp", model="/models/x.gguf")

    assert (seen.module, seen.program, seen.processor) == ("xllamacpp", None, ("avx2",))
    assert [library.file for library in seen.libraries] == ["libgomp.so.1"]


def test_somebody_elses_server_has_nothing_here() -> None:
    assert inspected("remote", url="http://127.0.0.1:1/v1") == Inspection()


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_kind_that_is_not_configured_says_what_it_is_called(kind: str) -> None:
    usual = engine_kind(kind).usual

    assert usual == Inspection() or usual.what


VERSIONS = {"0.11.2": True, "0.31.9+cpu": True, "0.32.0": False, "0.32.0+cpu": False, "1.0": False, "nightly": False}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_vllm_with_published_vulnerabilities_is_named(version: str) -> None:
    said = flaw(version)

    assert (said is not None) == VERSIONS[version]
    assert said is None or (version in said and "Install 0.32.0" in said)
