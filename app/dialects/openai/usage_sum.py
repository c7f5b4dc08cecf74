"""The usage of several choices, from an engine that reports each one's by itself (llama.cpp). Pure."""

from __future__ import annotations

from typing import Any


class UsageSum:
    """`reports`: how many will come; `copies`: how many choices one prompt has (`n`), which is counted once."""

    def __init__(self, reports: int, copies: int) -> None:
        self._left = reports
        self._copies = max(1, copies)
        self._counts: dict[str, int] = {}

    def add(self, usage: dict[str, Any]) -> bool:
        """Add one report; whether it was the last."""
        self._left -= 1
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        for name, value in (
            ("prompt", usage.get("prompt_tokens")),
            ("completion", usage.get("completion_tokens")),
            ("cached", cached),
        ):
            if isinstance(value, int):
                self._counts[name] = self._counts.get(name, 0) + value
        return self._left == 0

    @property
    def usage(self) -> dict[str, Any]:
        """OpenAI's `usage` of all that was reported."""
        prompt, output = self._counts.get("prompt", 0) // self._copies, self._counts.get("completion", 0)
        usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
        if "cached" not in self._counts:
            return usage
        return usage | {"prompt_tokens_details": {"cached_tokens": self._counts["cached"] // self._copies}}
