"""What a GGUF file tells of the embedded engine before it is started."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any, Final

from backends.endpoint import DECLARED, ModelFacts
from backends.errors import BackendError
from backends.http.openai_models import OF_TEXT
from backends.inspection import Inspection, NeededLibrary
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.facts import sampling
from backends.llama_cpp.gguf import model_file
from backends.llama_cpp.gguf_contents import SOURCE_DIGEST, read_contents
from backends.llama_cpp.gguf_header import Unreadable, shape
from backends.preflight import EngineAccount, Missing, ModelOnDisk, Preflight

_GB: Final = 1e9
# Its process and buffers. Measured with SmolLM2-135M: 0.055 GB at the start; the buffer for one batch's logits of a
# large vocabulary adds 0.26 (512 × 128k × 4 bytes).
_PROCESS_GB: Final = 0.3
_KV_BYTES: Final = 2  # it keeps keys and values as f16
_CAPABILITIES: Final = {"generate": OF_TEXT, "embed": ("embedding",)}

USUAL: Final = Inspection(
    what="the embedded engine (llama.cpp)",
    module="xllamacpp",
    package="xllamacpp",
    libraries=(NeededLibrary("libgomp.so.1", "libgomp1"),),
    processor=("avx2",),
)


class LlamaCppPreflight(Preflight):
    """All of it is in the model's file."""

    def __init__(self, config: LlamaCppConfig) -> None:
        self._config = config

    def missing(self) -> Missing:
        """The model's file, or the package that holds it, and the chat template."""
        model, template = self._config.model, self._config.chat_template
        if template is not None and not Path(template).expanduser().is_file():
            yield "chat_template", f"'{template}' is not a file here"
        package = model.removeprefix("package:")
        if package == model and not Path(model).expanduser().is_file():
            yield "model", f"'{model}' is not a file here"
            return
        try:
            path = model_file("", model)
        except BackendError as exc:
            is_absent = "not installed" in exc.message
            yield "model", f"the package '{package}' is not installed" if is_absent else exc.message
            return
        try:
            shape(path)
        except (OSError, Unreadable) as exc:
            yield "model", f"'{model}' is broken or cut short ({exc}): bring it here again"

    def expected_facts(self) -> ModelFacts:
        """Context length and architecture from the file, capabilities by the task."""
        length, architecture = self._config.context_length, None
        with contextlib.suppress(BackendError, OSError, Unreadable):  # the engine says what is wrong when it starts
            model = shape(model_file("", self._config.model))
            length, architecture = length or model.context_length or None, model.architecture
        capabilities = dict.fromkeys(_CAPABILITIES.get(self._config.task, ()), DECLARED)
        return ModelFacts(context_length=length, capabilities=capabilities, architecture=architecture)

    def on_disk(self) -> ModelOnDisk | None:
        """From the file's metadata. What it draws with, the engine tells."""
        try:
            path = model_file("", self._config.model)
            told = read_contents(path).metadata
        except (BackendError, OSError, Unreadable):
            return None
        bos, source = told.get("tokenizer.ggml.bos_token_id"), told.get(SOURCE_DIGEST)
        length = told.get(f"{told.get('general.architecture')}.context_length")
        return ModelOnDisk(
            weights=(path,),
            has_template=bool(told.get("tokenizer.chat_template")),
            template_is_given=self._config.chat_template is not None,
            bos=bos if isinstance(bos, int) else None,
            source=source if isinstance(source, str) else None,
            context_length=length if isinstance(length, int) and length > 0 else None,
        )

    def account_request(self, model: str) -> tuple[str, object] | None:
        """Its properties."""
        return "/props", None

    def account(self, answer: Any) -> EngineAccount:
        """What it draws with."""
        return EngineAccount(sampling=sampling(answer))

    def weights_gb(self) -> float | None:
        """The size of the file."""
        with contextlib.suppress(BackendError, OSError):
            return model_file("", self._config.model).stat().st_size / _GB
        return None

    def estimated_gb(self, host_gb: float) -> float | None:
        """The file + the KV cache + 0.3.

        The cache has 2 bytes for each of (key length + value length) × KV heads × layers of each token, and tokens =
        context × slots (GGUF's own figures; checked with SmolLM2-135M: 0.91 GB measured at 4 slots of 8,192 tokens,
        0.85 + 0.055 counted). The cache of earlier prompts, 0.5 GB at most, grows later and is not counted.
        """
        try:
            path = model_file("", self._config.model)
            size_gb = path.stat().st_size / _GB
            model = shape(path)
        except (BackendError, OSError, Unreadable):
            return None
        tokens = (self._config.context_length or model.context_length) * self._config.slots
        return size_gb + model.kv_width * tokens * _KV_BYTES / _GB + _PROCESS_GB

    def inspection(self) -> Inspection:
        """The library that our own Python loads."""
        return dataclasses.replace(USUAL, env=self._config.env)
