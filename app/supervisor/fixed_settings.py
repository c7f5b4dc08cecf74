"""The settings that a reload cannot change, because they are read only at the start. Pure."""

from __future__ import annotations

from typing import Final

from app.config.model import Config

READ_AT_START: Final = ("host", "port", "relays", "root_path", "docs", "metrics_host", "metrics_port")


def needs_restart(running: Config, new: Config) -> tuple[str, ...]:
    """The settings, as `server.NAME`, that differ from the new configuration and need a restart to change."""
    return tuple(
        f"server.{name}" for name in READ_AT_START if getattr(running.server, name) != getattr(new.server, name)
    )


def as_started(running: Config, new: Config) -> Config:
    """The new configuration with the settings of READ_AT_START as they were at the start."""
    kept = {name: getattr(running.server, name) for name in READ_AT_START}
    return new.model_copy(update={"server": new.server.model_copy(update=kept)})
