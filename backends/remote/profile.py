"""What the data path has to know of endpoints that somebody else runs: nothing, so everything is passed."""

from __future__ import annotations

from typing import Final

from backends.engine_profile import EngineProfile, ModelNames, TaskApi

PROFILE: Final = EngineProfile(
    kind="remote",
    model_names=ModelNames.ONLY_LISTED,
    abilities="what its own server answers",
    passes_parameters=True,
    configured_names={"typical_p": None},
    transcribes=True,
    tasks=TaskApi.SAME_ROUTES,
)
