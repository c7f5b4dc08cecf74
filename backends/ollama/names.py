"""How an Ollama daemon reads names of models: `m` is `m:latest`, and case does not matter. Pure."""

from __future__ import annotations


def full_name(name: str) -> str:
    """The one spelling that all spellings of a name have in common: lower case, with a tag."""
    name = name.lower()
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"
