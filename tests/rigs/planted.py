"""Servings of SmolLM2 with something wrong with each: chat templates, GGUF files, and what it was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from app.certificate import certify
from app.certificate.certificate import Certificate, Fault
from app.certificate.observation import Observation
from app.certificate.serving import Expectation
from app.reference.chats import CHATS
from app.reference.reference import Reference
from backends.llama_cpp.gguf_contents import SOURCE_DIGEST
from backends.llama_cpp.gguf_rewrite import rewrite
from tests.journeys.gateway import Gateway

SYSTEM: Final = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
# Of the chats that every template of SmolLM2 has words for.
SHOWN: Final = {name: CHATS[name] for name in ("one turn", "system", "several turns", "Chinese", "emoji")}
LLAMA_3: Final = (
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] }}<|eot_id|>"
    "{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n"
)
NO_SYSTEM: Final = (
    "{% for m in messages %}{% if m['role'] != 'system' %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endif %}{% endfor %}<|im_start|>assistant\n"
)
TWICE: Final = (
    "<|im_start|>{% if messages[0]['role'] != 'system' %}<|im_start|>system\n" + SYSTEM + "<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


def chatml(messages: Any) -> str:
    """As SmolLM2's own template has it."""
    first = [] if messages[0]["role"] == "system" else [{"role": "system", "content": SYSTEM}]
    turns = [f"<|im_start|>{each['role']}\n{each['content']}<|im_end|>\n" for each in (*first, *messages)]
    return "".join(turns) + "<|im_start|>assistant\n"


def in_words(messages: Any) -> str:
    """As LLaMA-Factory's template `default` has it."""
    said = {"system": "{}\n", "user": "Human: {}<|im_end|>\nAssistant:", "assistant": "{}<|im_end|>\n"}
    return "".join(said[each["role"]].format(each["content"]) for each in messages)


_OWN: Final = {name: chatml(chat.messages) for name, chat in SHOWN.items()}
TRAINED: Final = Reference(
    source="tokenizer",
    template=None,
    reason="the tokenizer's own template",
    rendered=_OWN,
    own=_OWN,
    own_differs=False,
    stops=("<|im_end|>",),
    default_system=SYSTEM,
    chat_template=None,
)
TRAINED_IN_WORDS: Final = dataclasses.replace(
    TRAINED,
    source="llamafactory",
    template="default",
    rendered={name: in_words(chat.messages) for name, chat in SHOWN.items()},
    own_differs=True,
    default_system=None,
)
# The same model, whose stop its tokenizer calls otherwise: an engine cannot know that by the name.
TRAINED_RENAMED: Final = dataclasses.replace(
    TRAINED,
    rendered={name: text.replace("<|im_end|>", "<|my_end|>") for name, text in _OWN.items()},
    own={name: text.replace("<|im_end|>", "<|my_end|>") for name, text in _OWN.items()},
    stops=("<|my_end|>",),
)


def plant(demo: Path, folder: Path) -> Mapping[str, Path]:
    """The demo model without its template, with another end of turns, and as made from checkpoint `aa…`."""
    names = ("no_template", "renamed", "no_stop", "other_checkpoint")
    files = {name: folder / f"{name}.gguf" for name in names}
    rewrite(demo, files["no_template"], {"tokenizer.chat_template": None})
    rewrite(demo, files["other_checkpoint"], {SOURCE_DIGEST: "aa" * 32})
    renamed = demo.read_bytes().replace(b"<|im_end|>", b"<|my_end|>")
    files["renamed"].write_bytes(renamed)
    rewrite(files["renamed"], files["no_stop"], {"tokenizer.ggml.eos_token_id": 0})
    return files


def observed(
    gateway: Gateway, name: str, reference: Reference, expected: Expectation, parts: Collection[str] = certify.PARTS
) -> Observation:
    """What is seen of a public name."""
    return certify.observe(name, reference, gateway.order, expected=expected, chats=SHOWN, max_tokens=4, parts=parts)


def named(certificate: Certificate) -> set[Fault]:
    """The faults that it names."""
    return set(certificate.faults)
