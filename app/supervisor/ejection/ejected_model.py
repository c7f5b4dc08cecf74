"""An ejection as people are shown it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EjectedModel:
    """A model that requests pass a backend over for. `model`: the engine's own name for it. `since_s`: for how long;
    `tried_in_s`: when it is asked again whether it is well.
    """

    model: str
    reason: str
    evidence: str
    since_s: float
    tried_in_s: float
