"""What the data path has to know of endpoints that somebody else runs: nothing, so everything is passed."""

from __future__ import annotations

from typing import Final

from backends.engine_profile import EngineProfile, ModelNames, TaskApi
from backends.vllm.profile import CORE_FAILED

PROFILE: Final = EngineProfile(
    kind="remote",
    model_names=ModelNames.ONLY_LISTED,
    abilities="what its own server answers",
    passes_parameters=True,
    configured_names={"typical_p": None},
    transcribes=True,
    tasks=TaskApi.SAME_ROUTES,
    failure_marks=CORE_FAILED,  # it may be a vLLM
)
