"""What is to become of a unit by the configuration: another configuration, its end, or nothing."""

from __future__ import annotations

from dataclasses import dataclass

from backends.config.base import BackendConfig
from backends.lifecycle.events import StopAsked


@dataclass(frozen=True, slots=True)
class ConfigRefused:
    """A configuration that an engine does not start with."""

    config: BackendConfig
    reason: str


class PendingChange:
    """Of one unit; its fields are written here only.

    `next_config`: what it takes once it is stopped; None: nothing new. `starts_after`: then it starts again.
    `postponed_stop`: it is to stop so, as soon as its replicas can spare it. `refused`: what it was to become, and does
    not start with. `is_leaving`: it is not configured any more. `is_closing`: the gateway ends.
    """

    def __init__(self) -> None:
        self.next_config: BackendConfig | None = None
        self.starts_after = False
        self.postponed_stop: StopAsked | None = None
        self.refused: ConfigRefused | None = None
        self.is_leaving = False
        self.is_closing = False

    def take(self, config: BackendConfig, *, starts_after: bool) -> None:
        """It is to become this, when it is stopped."""
        self.next_config = config
        self.starts_after = self.starts_after or starts_after
        self.is_leaving = False

    def leave(self) -> None:
        """It is to go, when it is stopped."""
        self.drop()
        self.is_leaving = True

    def stay(self) -> None:
        """It is to be what it is, and no longer to change or to leave."""
        self.drop()
        self.is_leaving = False

    def drop(self) -> None:
        """Nothing new is to come of it."""
        self.next_config = self.postponed_stop = None

    def taken(self) -> None:
        """It has become what it was to become; whether it starts then has been seen to by the caller."""
        self.drop()
        self.refused = None

    def started(self) -> None:
        """Its start after the change was asked for, or is not wanted."""
        self.starts_after = False

    def postpone(self, stop: StopAsked | None) -> None:
        """It is to stop so, when its replicas can spare it; None: not any more."""
        self.postponed_stop = stop

    def refuse(self, config: BackendConfig, reason: str) -> None:
        """It does not start with this configuration."""
        self.refused = ConfigRefused(config, reason)

    def forgive(self) -> None:
        """What it did not start with may be tried again."""
        self.refused = None

    def close(self) -> None:
        """The gateway ends: nothing new is to come of it."""
        self.drop()
        self.is_closing = True
