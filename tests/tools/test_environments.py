"""Every tool environment as it is really made, and what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.toolenv.child import call
from backends.toolenv.environment import Toolbox
from backends.toolenv.tools import TOOLS

IMPORTS = """
import importlib, json, sys
names = json.load(sys.stdin)["modules"]
where = {name: importlib.import_module(name).__file__ for name in names}
print(json.dumps({"result": where}))
"""
MODULES = {
    "convert": ["torch", "transformers", "peft", "safetensors", "conversion", "gguf"],
    "quantize": [],
    "quantize-rows": ["gguf", "libgguf", "numpy"],
    "templates": ["jinja2", "typing_extensions"],
    "report": ["numpy", "matplotlib"],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_environment_is_made_and_has_what_it_is_for(toolbox: Toolbox, tmp_path: Path, tool: str) -> None:
    script = tmp_path / "imports.py"
    script.write_text(IMPORTS)
    python = toolbox.python(tool)

    where = call(python, script, {"modules": MODULES[tool]})

    assert sorted(where) == sorted(MODULES[tool])
    assert [path for path in where.values() if not path.startswith(str(python.parent.parent))] == []


def test_the_quantiser_is_a_program_beside_its_package(toolbox: Toolbox) -> None:
    environment = toolbox.python("quantize").parent.parent

    programs = list(environment.glob("lib/python3*/site-packages/ik_llama_cpp/bin/llama-quantize"))

    assert len(programs) == 1
