"""What the data path has to know of it."""

from __future__ import annotations

from typing import Final

from backends.engine_profile import EngineProfile, adjusted

PROFILE: Final = EngineProfile(
    kind="fifth",
    title="the fifth engine",
    abilities="chats",
    is_local=True,
    options={"top_k": "top_tokens"},
    parameters={"chat": {"logit_bias": adjusted("`token_bias`", renamed="token_bias")}},
)
