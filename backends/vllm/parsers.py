"""Which parsers for tool calls and for reasoning the vLLM of an environment has, found without starting it."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# Of vLLM 0.32, for a vLLM whose files are not found.
_TOOL = """
apertus cohere_command3 cohere_command4 deepseek_v3 deepseek_v31 deepseek_v32 deepseek_v4 deepseek_v41 dots
ernie45 functiongemma gemma4 gigachat3 glm45 glm47 granite granite-20b-fc granite4 hermes hf hunyuan_a13b hy_v3
hy_v4 inkling internlm jamba k2_horizon kimi_k2 kimi_k3 lfm2 ling3 llama3_json llama4_json llama4_pythonic
longcat mimo minicpm5 minimax_m2 minimax_m3 mistral muse_glimmer olmo3 openai phi4_mini_json plamo3 poolside_v1
pythonic qwen3_coder qwen3_json qwen3_xml seed_oss step3 step3p5 xlam
"""
TOOL: Final = frozenset(_TOOL.split())
_REASONING = """
cohere_command3 cohere_command4 deepseek_r1 deepseek_v3 deepseek_v4 deepseek_v41 ernie45 gemma4 glm45 glm47
granite granite_thinking_parser hf holo2 hunyuan_a13b hy_v3 hy_v4 inkling k2_horizon kimi_k2 kimi_k3 ling3 mimo
minicpmv minimax_m2 minimax_m2_append_think minimax_m3 mistral muse_glimmer nemotron_v3 olmo3 openai_gptoss
plamo3 poolside_v1 qwen3 seed_oss step3 step3p5
"""
REASONING: Final = frozenset(_REASONING.split())
_PACKAGES: Final = {"tool_call_parser": "tool_parsers", "reasoning_parser": "reasoning"}
_TABLE: Final = "_PARSERS_TO_REGISTER"


def known(setting: str, executable: Path | None) -> tuple[frozenset[str], bool]:
    """The names that `setting` (`tool_call_parser` or `reasoning_parser`) may have, and whether they are those of the
    vLLM of this program; else they are those of vLLM 0.32. Blocks: it reads files.
    """
    installed = frozenset(_installed(_PACKAGES[setting], executable)) if executable is not None else frozenset()
    return (installed, True) if installed else (TOOL if setting == "tool_call_parser" else REASONING, False)


def _installed(package: str, executable: Path) -> Iterator[str]:
    for home in dict.fromkeys((executable.parent.parent, executable.resolve().parent.parent)):
        for file in home.glob(f"lib*/python3*/*-packages/vllm/{package}/__init__.py"):
            with contextlib.suppress(OSError, SyntaxError, ValueError):
                for node in ast.parse(file.read_bytes()).body:
                    yield from _keys(node)


def _keys(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if any(name.endswith(_TABLE) for name in names):
            for key in node.value.keys:
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value
