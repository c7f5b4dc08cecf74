"""The settings that a reload cannot change, because they are read only at the start. Pure."""

from __future__ import annotations

from typing import Final

from app.config.model import Config

READ_AT_START: Final = ("host", "port", "relays", "root_path", "docs", "metrics_host", "metrics_port")
STORE_AT_START: Final = ("url", "timeout_s", "forget_after_s")


def needs_restart(running: Config, new: Config) -> tuple[str, ...]:
    """The settings, as `SECTION.NAME`, that differ from the new configuration and need a restart to change."""
    differ = [f"server.{name}" for name in READ_AT_START if getattr(running.server, name) != getattr(new.server, name)]
    differ += [f"store.{name}" for name in STORE_AT_START if getattr(running.store, name) != getattr(new.store, name)]
    return tuple(differ)


def as_started(running: Config, new: Config) -> Config:
    """The new configuration with the settings that are read at the start as they were then."""
    server = {name: getattr(running.server, name) for name in READ_AT_START}
    store = {name: getattr(running.store, name) for name in STORE_AT_START}
    return new.model_copy(
        update={"server": new.server.model_copy(update=server), "store": new.store.model_copy(update=store)}
    )
