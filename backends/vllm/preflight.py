"""What vLLM's settings, its environment and its model's folder tell before it is started."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from backends.endpoint import ModelFacts
from backends.huggingface.fetcher import is_repository
from backends.inspection import Inspection, NeededLibrary
from backends.preflight import Missing, ModelOnDisk, Preflight, missing_program, program_path
from backends.vllm import memory
from backends.vllm.argv import lora_rank
from backends.vllm.config import VllmConfig
from backends.vllm.facts import capabilities_of, length_in, quantization_in, sampling
from backends.vllm.model_folder import adapter_flaw, config_of, json_object, model_flaw
from backends.vllm.parsers import known

# Where a model's folder keeps its chat template, if not in the tokenizer's configuration.
_TEMPLATES: Final = ("chat_template.jinja", "chat_template.json")
# With one of these among `args` a parser's name may be somebody's own.
_PLUGINS: Final = {"tool_call_parser": "--tool-parser-plugin", "reasoning_parser": "--reasoning-parser-plugin"}
# The oldest release without a published vulnerability.
_SOUND: Final = (0, 32)


def flaw(version: str) -> str | None:
    """A sentence about a release with published vulnerabilities; None for another, or what is not a release."""
    match = re.match(r"v?(\d+)\.(\d+)", version)
    if match is None or tuple(map(int, match.groups())) >= _SOUND:
        return None
    return f"vLLM {version[:40]} has published vulnerabilities. Install 0.32.0 or newer."


USUAL: Final = Inspection(
    what="vLLM",
    program="vllm",
    version_words=("--version",),
    package="vllm",
    flaw=flaw,
    libraries=(NeededLibrary("libnuma.so.1", "libnuma1", only_on_cpu=True),),
    variables=("VLLM_", "NCCL_"),
)
_OF_HUB: Final = ("HF_TOKEN", "HF_HUB_", "HUGGING_FACE_HUB_TOKEN", "TRANSFORMERS_OFFLINE")


class VllmPreflight(Preflight):
    """A model or an adapter that is on the hub and not here is nothing that is missing: it is downloaded."""

    def __init__(self, config: VllmConfig) -> None:
        self._config = config

    def missing(self) -> Missing:
        """Its program, the model's and the adapters' folders, the chat template, and parsers by name."""
        config = self._config
        program = program_path(config.command[0], config.env)
        if program is None:
            yield from missing_program(config.command[0], "install vLLM in an environment of its own, and name it")
        if (flaw := model_flaw(config.model)) is not None:
            yield "model", flaw
        for name, path in config.adapter_paths().items():
            if (flaw := adapter_flaw(path, config.model, lora_rank(config.args))) is not None:
                yield f"adapters.{name}", flaw
        template = config.chat_template
        if template is not None and "{" not in template and not Path(template).expanduser().is_file():
            yield "chat_template", f"'{template}' is not a file here"
        yield from self._parsers(Path(program) if program is not None else None)

    def expected_facts(self) -> ModelFacts:
        """Length, architecture and quantization from the model's folder, capabilities from the settings."""
        model = config_of(self._config.model)
        architecture = model.get("model_type") if model is not None else None
        return ModelFacts(
            context_length=self._config.max_model_len or length_in(model),
            capabilities=capabilities_of(self._config),
            quantization=self._config.quantization or quantization_in(model),
            architecture=architecture[:64] if isinstance(architecture, str) and architecture else None,
        )

    def on_disk(self) -> ModelOnDisk | None:
        """From the model's folder and the settings that stand over what it says."""
        config, folder = self._config, Path(self._config.model).expanduser()
        model = config_of(config.model)
        if model is None:
            return None
        tokenizer = json_object(folder / "tokenizer_config.json") or {}
        bos, text = model.get("bos_token_id"), tokenizer.get("bos_token")
        return ModelOnDisk(
            weights=tuple(sorted(folder.glob("*.safetensors"))),
            has_template="chat_template" in tokenizer or any((folder / name).is_file() for name in _TEMPLATES),
            template_is_given=config.chat_template is not None,
            bos=bos if isinstance(bos, int) else None,
            bos_text=text if isinstance(text, str) else None,
            sampling=sampling(config, json_object(folder / "generation_config.json") or {}),
            context_length=length_in(model),
        )

    def weights_gb(self) -> float | None:
        """The files of weights in the model's folder."""
        return memory.weights_gb(self._config)

    def estimated_gb(self, host_gb: float) -> float | None:
        """Weights, KV cache and processes, or the share of the host's memory that it takes for all of them."""
        return memory.estimated_gb(self._config, host_gb)

    def demanded_gb(self, host_gb: float) -> float | None:
        """What its start checks: the size of the KV cache, or its share of the host's memory."""
        return memory.demanded_gb(self._config, host_gb)

    def inspection(self) -> Inspection:
        """Its program, and what of its models is on the hub. One that is called through another program (`uv run vllm`)
        tells its version itself.
        """
        config, env = self._config, self._config.env
        models = [config.model, *(path for path in config.adapter_paths().values() if "/" in path)]
        on_hub = [name for name in models if is_repository(name) and not Path(name).exists()]
        is_other_hub = env.get("VLLM_USE_MODELSCOPE", "0").lower() in ("1", "true")
        return dataclasses.replace(
            USUAL,
            program=config.command[0],
            search=env.get("PATH", os.environ.get("PATH", os.defpath)),
            version_words=(*config.command[1:], *USUAL.version_words),
            hub=() if is_other_hub else tuple(dict.fromkeys(on_hub)),
            env=env,
            variables=(*USUAL.variables, *_OF_HUB) if on_hub else USUAL.variables,
        )

    def _parsers(self, program: Path | None) -> Missing:
        given = {word.partition("=")[0].replace("_", "-") for word in self._config.args}
        for setting, plugin in _PLUGINS.items():
            name = getattr(self._config, setting)
            if name is None or plugin in given:
                continue
            names, is_installed = known(setting, program)
            if name not in names:
                whose = "the vLLM of `command`" if is_installed else "vLLM 0.32"
                yield setting, f"{whose} has no parser '{name}' {_similar(name, names)}"


def _similar(name: str, names: Iterable[str]) -> str:
    similar = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.5)
    return f"(similar: {', '.join(similar)})" if similar else f"(it has: {', '.join(sorted(names))})"
