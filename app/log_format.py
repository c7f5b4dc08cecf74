"""The words for how log lines are written: read by the command line, the configuration and the logger itself."""

from __future__ import annotations

from typing import Literal

LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
