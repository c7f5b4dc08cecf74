"""How an Ollama daemon understands names: `m` is `m:latest`, and case does not matter. Pure."""

from __future__ import annotations


def full_name(name: str) -> str:
    """The one spelling that stands for all of a name's spellings."""
    name = name.lower()
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"
