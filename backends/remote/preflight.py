"""What is known of an endpoint that somebody else runs before it is asked."""

from __future__ import annotations

from backends.endpoint import ModelFacts
from backends.preflight import Preflight
from backends.remote.config import RemoteConfig


class RemotePreflight(Preflight):
    """Its settings are all there is."""

    def __init__(self, config: RemoteConfig) -> None:
        self._config = config

    def expected_facts(self) -> ModelFacts | None:
        """The context length, where it is configured."""
        length = self._config.context_length
        return ModelFacts(context_length=length) if length is not None else None
