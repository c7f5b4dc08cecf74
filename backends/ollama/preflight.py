"""What is known of an Ollama daemon before it is asked or started."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Final

from backends.endpoint import ModelFacts
from backends.inspection import Inspection
from backends.ollama import facts
from backends.ollama.config import OllamaConfig
from backends.preflight import EngineAccount, Missing, Preflight, missing_program, program_path

USUAL: Final = Inspection(what="Ollama", program="ollama", version_words=("--version",), flaw=facts.warning)


class OllamaPreflight(Preflight):
    """Its models are the daemon's affair; the program and the folder of one that we run are looked at."""

    def __init__(self, config: OllamaConfig) -> None:
        self._config = config

    def missing(self) -> Missing:
        """Of a managed daemon: its program, and its folder of models."""
        config = self._config
        if not config.managed:
            return
        if program_path(config.command[0], config.env) is None:
            yield from missing_program(config.command[0], "install Ollama, or name its program")
        if config.models_folder is not None and not Path(config.models_folder).expanduser().is_dir():
            yield "models_folder", f"'{config.models_folder}' is not a folder here"

    def expected_facts(self) -> ModelFacts | None:
        """The context length, where one is configured for all models."""
        length = self._config.num_ctx
        return ModelFacts(context_length=length) if length is not None else None

    def account_request(self, model: str) -> tuple[str, object] | None:
        """What the daemon shows of it."""
        return "/api/show", {"model": model}

    def account(self, answer: Any) -> EngineAccount:
        """Its Modelfile's parameters and template, and the digest of its weights."""
        return EngineAccount(
            sampling=facts.sampling(answer),
            stops=facts.stops(answer),
            has_template=facts.has_template(answer),
            sha256=facts.weights(answer),
        )

    def inspection(self) -> Inspection:
        """The program of a daemon that we run; of another one its answers tell all there is."""
        config = self._config
        if not config.managed:
            return Inspection()
        return dataclasses.replace(
            USUAL,
            program=config.command[0],
            search=config.env.get("PATH", os.environ.get("PATH", os.defpath)),
            version_words=(*config.command[1:], *USUAL.version_words),
            env=config.env,
            variables=("OLLAMA_",),
        )
