"""What a reload cannot change, because it is read at the start only. Pure."""

from __future__ import annotations

from typing import Final

from app.config.model import Config

READ_AT_START: Final = ("host", "port", "relays", "root_path", "docs")


def needs_restart(running: Config, wished: Config) -> tuple[str, ...]:
    """The settings that are not as the file has them now, because they are read at the start only."""
    return tuple(
        f"server.{name}" for name in READ_AT_START if getattr(running.server, name) != getattr(wished.server, name)
    )


def as_started(running: Config, wished: Config) -> Config:
    """The wished configuration with what is read at the start only as it was then."""
    kept = {name: getattr(running.server, name) for name in READ_AT_START}
    return wished.model_copy(update={"server": wished.server.model_copy(update=kept)})
