"""The names that the shell completes: those of the running gateway, else those in the configuration file.

It runs at every press of a key, so it loads nothing that is heavy, waits for a moment only, and says nothing when
something is wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from app import running_gateway

# As in app.config.settings, which takes a quarter of a second to load.
_CONTROL_SOCKET: Final = "control.sock"
_CONFIG: Final = "modelport.yaml"
_PLAIN: Final = re.compile(r"[\w.,/:@%+=-]+")


def backends(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The backends that begin so, each with its state."""
    return _matching(_known(ctx, "backends"), incomplete)


def models(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The public names that begin so, each with its state."""
    return _matching(_known(ctx, "models"), incomplete)


def models_and_pairs(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The pairs to compare, and the public names."""
    pairs = [(name, "pair") for name in in_file(_file(ctx), "pairs")]
    return _matching([*pairs, *_known(ctx, "models")], incomplete)


def in_answer(answer: Any, section: str) -> list[tuple[str, str]]:
    """The names and states in what `/admin/status` answered; `section`: `models` or `backends`. Pure."""
    try:
        return [(str(each["name"]), str(each["state"])) for each in answer["health"][section]]
    except (KeyError, TypeError):
        return []


def in_file(text: str, section: str) -> list[str]:
    """The keys right below this section of a configuration file, as far as one line each tells them. Pure."""
    body = re.search(rf"^{section}:[ \t]*(?:#.*)?\n((?:[ \t]+.*\n?|[ \t]*#.*\n?|\n)*)", text, re.MULTILINE)
    if body is None:
        return []
    keys = re.findall(
        r"""^([ \t]+)(?:"([^"]*)"|'([^']*)'|([^\s"'#:{}\[\],-][^:#\n]*?)):(?:\s|$)""", body[1], re.MULTILINE
    )
    first = keys[0][0] if keys else ""
    return [double or single or plain for indent, double, single, plain in keys if indent == first]


def _matching(names: Sequence[tuple[str, str]], incomplete: str) -> list[tuple[str, str]]:
    """Without names that a shell would take for something else: it puts them on its line as they are."""
    first: dict[str, str] = {}
    for name, state in names:
        if _PLAIN.fullmatch(name):
            first.setdefault(name, state)
    return [(name, state) for name, state in first.items() if name.startswith(incomplete)]


def _known(ctx: typer.Context, section: str) -> list[tuple[str, str]]:
    answer = running_gateway.status(_socket(ctx.params, os.environ))
    return in_answer(answer, section) or [(name, "") for name in in_file(_file(ctx), section)]


def _socket(given: Mapping[str, Any], env: Mapping[str, str]) -> Path:
    import platformdirs

    folder = given.get("state") or env.get("MODELPORT_STATE")
    return Path(folder or platformdirs.user_state_dir("modelport", appauthor=False)).expanduser() / _CONTROL_SOCKET


def _file(ctx: typer.Context) -> str:
    path = Path(ctx.params.get("config") or os.environ.get("MODELPORT_CONFIG") or _CONFIG).expanduser()
    try:
        if not path.is_file():  # a pipe, say, at which this would wait
            return ""
        with path.open("rb") as file:
            return file.read(running_gateway.MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""
