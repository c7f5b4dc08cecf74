"""`modelport api`, as far as it needs no engine: what is refused before anything takes long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.supervisor.state_folder import StateFolder
from tests.rigs.cli import run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that says what the model is; a conversion would miss its weights."""
    folder = tmp_path / "law"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    return folder


def test_a_named_state_folder_in_use_is_refused_before_anything_is_converted(model: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"

    with StateFolder(state):
        ended = run(
            tmp_path, "api", "--model_name_or_path", str(model), "--infer_backend", "llama_cpp", "--state", str(state)
        )

    assert ended.code == 1
    (line,) = ended.err.splitlines()
    assert line.startswith(f"a gateway already runs on the state folder {state} (process ")
    assert line.endswith("; stop it or choose another with --state.")
    assert sorted(each.name for each in state.iterdir()) == ["lock"]
