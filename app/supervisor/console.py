"""The text for the terminal: the banner at the start, and lines on how the engines are doing. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.config.model import DEMO_INSTALL, Config
from app.supervisor.admin.views import models
from app.table import Backend, Table
from backends.endpoint import State

_NOTHING = (
    "  Nothing to serve yet: the demo model is not installed. An Ollama daemon is served as soon as it answers.",
    f"  The demo model (93 MB): {DEMO_INSTALL}",
    "  A model of your own:    modelport add NAME --gguf FILE",
)


def banner(
    table: Table,
    *,
    version: str,
    url: str,
    is_loopback: bool,
    chat_model: str | None,
    implicit: frozenset[str] = frozenset(),
) -> str:
    """The address, the public names with their states, and a `curl` line that works as printed.

    Wildcards of `implicit` backends are left out: nobody configured these, they are only looked for. `chat_model`: the
    model in the `curl` line, None where there is none to chat with.
    """
    reach = "only this machine can reach it" if is_loopback else "other machines can reach it"
    lines = [f"Modelport {version} listens on {url} ({reach})", ""]
    rows = [(model.name, model.state.value, ", ".join(model.backends)) for model in models(table)]
    wildcards = [wildcard for wildcard in table.wildcards if wildcard.backend not in implicit]
    rows += [(f"{wildcard.prefix}*", _state(table, wildcard.backend), wildcard.backend) for wildcard in wildcards]
    width = max((len(name) for name, _, _ in rows), default=0)
    lines += [f"  {name:<{width}}  {state:<9} {backend}" for name, state, backend in rows] or [*_NOTHING]
    lines += ["", f"  {curl(url, chat_model, has_keys=not table.is_open)}", ""]
    if not table.is_open:
        lines += ["  (with one of your keys in API_KEY: export API_KEY=…)", ""]
    return "\n".join(lines)


def curl(url: str, chat_model: str | None, *, has_keys: bool) -> str:
    """A shell command: a chat with that model, or the list of models when it is None."""
    key = ' -H "Authorization: Bearer $API_KEY"' if has_keys else ""
    if chat_model is None:
        return f"curl {url}/v1/models{key}"
    question = [{"role": "user", "content": "What is 7+5?"}]
    # The demo model is small, and right only at temperature 0.
    body = json.dumps({"model": chat_model, "messages": question, "temperature": 0})
    return f"curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def _state(table: Table, name: str) -> str:
    backend = table.backends.get(name)
    return backend.state.value if backend is not None else State.STOPPED.value


@dataclass(frozen=True, slots=True)
class ReportedState:
    """What the last line about a backend said. `began`: when it began to start, in seconds of the caller's clock."""

    state: State
    reason: str | None
    began: float


def progress(
    reported: Mapping[str, ReportedState], backends: Mapping[str, Backend], named: frozenset[str], now: float
) -> tuple[dict[str, ReportedState], list[str]]:
    """What is reported from now on, and the lines that report what has changed.

    Of backends that are not `named`, that is without a public name of their own, only success is reported: without
    a file an Ollama daemon is looked for, and most machines have none.
    """
    after: dict[str, ReportedState] = {}
    lines: list[str] = []
    for name, backend in backends.items():
        before = reported.get(name)
        began = before.began if before is not None and before.state is State.STARTING else now
        after[name] = ReportedState(backend.state, backend.reason, began)
        if before is None or (before.state, before.reason) != (backend.state, backend.reason):
            lines += _lines(name, backend, before, now - began, name in named)
    return after, lines


def _lines(name: str, backend: Backend, before: ReportedState | None, took_s: float, is_named: bool) -> Iterator[str]:
    match backend.state:
        case State.READY if before is None or before.state is not State.READY:
            yield f"  {name}: ready in {took_s:.1f} s"
        case State.STARTING if is_named and backend.reason:
            yield f"  {name}: {backend.reason}; starting again …"
        case State.STARTING if is_named and (before is None or before.state is not State.STARTING):
            yield f"  {name}: starting …"
        case State.FAILED if is_named:
            yield f"  {name}: failed: {backend.reason or 'no reason given'}"
        case State.STOPPING | State.STOPPED if is_named and before is not None and before.state is not backend.state:
            yield f"  {name}: {backend.state.value}"


def named_backends(config: Config) -> frozenset[str]:
    """The backends that a public name leads to, wildcards aside."""
    return frozenset(
        target.backend
        for name, model in config.models.items()
        if not name.endswith("*")
        for target in model.all_targets()
    )


def implicit(config: Config) -> frozenset[str]:
    """The backends that no public name leads to: without a file, those that are only looked for."""
    return frozenset(config.backends) - named_backends(config)


def chat_model(config: Config) -> str | None:
    """The first public name to chat with, for the banner's example."""
    for name, model in config.models.items():
        backends = [config.backends[target.backend] for target in model.all_targets()]
        if not name.endswith("*") and "generate" in [getattr(each, "task", "generate") for each in backends]:
            return name
    return None
