"""What a model was trained on: which prompts, which stops, and the chat template that serves exactly that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class ReferenceProblem(Exception):
    """What a model was trained on cannot be told or cannot be served: one sentence that says what to do."""


class Interpreters(Protocol):
    """Where interpreters of tool environments come from: a Toolbox."""

    def python(self, tool: str) -> Path:
        """The interpreter of a tool environment."""
        ...


@dataclass(frozen=True, slots=True)
class Reference:
    """What a model was trained on.

    `source`: "llamafactory" or "tokenizer"; `template`: LLaMA-Factory's name of it; `reason`: a sentence, which was
    taken and why. `rendered`: the prompt by name of the chat (`chats.py`), as LLaMA-Factory's chat engine asks or the
    tokenizer's template says; a chat that it refuses is in `refused`, with its words. `own`: the tokenizer's own
    template, likewise; `own_differs`: whether any chat does, and `own_difference` is the first one in words.
    `chat_template`: Jinja to serve in place of the tokenizer's; None: its own serves. `serves_tools`: whether what is
    to be served says chats with tools as the reference does; where not, `tools_difference` says how it differs.

    `stops`: the texts that end an answer; `stop_ids`: their tokens, of those that the tokenizer knows.
    `default_system`: what stands for a missing or empty system prompt, None where nothing does.
    `starts_with_bos`: every prompt begins with the text of the first token `bos`; `tokenizer_adds_bos`: the tokenizer
    puts one before every text, which an engine must not do a second time, nor at all where the prompt has none.
    `trained`: whole conversations as training encodes them, with one letter, U+E000, in the answer's place.
    `is_dated`: the prompt tells today's date. `cutoff_len`: training cut longer conversations there, in tokens.
    `notes`: sentences on what is not covered.
    """

    source: str
    template: str | None
    reason: str
    rendered: Mapping[str, str]
    own: Mapping[str, str]
    own_differs: bool
    stops: tuple[str, ...]
    default_system: str | None
    chat_template: str | None
    refused: Mapping[str, str] = field(default_factory=dict)
    own_difference: str | None = None
    serves_tools: bool = True
    tools_difference: str | None = None
    stop_ids: Mapping[str, int] = field(default_factory=dict)
    bos: str | None = None
    starts_with_bos: bool = False
    tokenizer_adds_bos: bool = False
    trained: Mapping[str, str] = field(default_factory=dict)
    is_dated: bool = False
    cutoff_len: int | None = None
    notes: tuple[str, ...] = ()


def reference(
    folder: Path,
    toolbox: Interpreters,
    *,
    template: str | None = None,
    training: Path | None = None,
    base: Path | None = None,
    today: str | None = None,
) -> Reference:
    """What the model in a Hugging Face folder (or a folder of a LoRA, with its `base`) was trained on.

    `template`: LLaMA-Factory's name of it, or "tokenizer" for the tokenizer's own; `training`: a training file of
    LLaMA-Factory's; neither: the folder and what is beside it tell. `today`: the date in prompts that tell it
    ("2026-11-27"). Raises ReferenceProblem. Blocks: it makes a tool environment the first time, and runs a child.
    """
    raise ReferenceProblem(f"what the model in {folder} was trained on cannot be told yet")
