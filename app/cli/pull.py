"""`modelport pull`: make an Ollama daemon download a model, and show the progress."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from app.cli import completion
from app.cli.admin_client import call
from app.cli.options import StateOption, fail

if TYPE_CHECKING:
    from ollama import ProgressResponse


def pull(
    name: Annotated[str, typer.Argument(help="The model's name for the daemon, such as `qwen2.5:7b`.")],
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            "-b",
            help="Which Ollama backend; not needed when there is one.",
            autocompletion=completion.backends,
        ),
    ] = None,
    state: StateOption = None,
) -> None:
    """Make an Ollama daemon of the running gateway download a model."""
    daemon = _daemon(call("GET", "/admin/status", state)["health"]["backends"], backend)
    import httpx
    import ollama

    # No time limit: lines come at long intervals during a download, and none while the daemon verifies it.
    try:
        with ollama.Client(host=str(daemon["url"]), timeout=None, trust_env=False) as client:
            _show(name, client.pull(name, stream=True))
    except ollama.ResponseError as exc:
        fail(f"{name}: {exc.error}")
    except (ConnectionError, httpx.HTTPError) as exc:
        fail(f"{name}: the daemon cannot be reached or ended the connection ({type(exc).__name__}).")
    # It runs already, so this only makes the gateway ask it for its models at once.
    call("POST", f"/admin/backends/{quote(str(daemon['name']), safe='')}/start", state)


def _daemon(backends: Sequence[Mapping[str, Any]], wanted: str | None) -> Mapping[str, Any]:
    """The Ollama backend of this name, or the only one (None); it must be serving. Ends the command otherwise."""
    daemons = {str(each["name"]): each for each in backends if each["kind"] == "ollama"}
    if wanted is not None and wanted not in daemons:
        fail(f"'{wanted}' is not an Ollama backend here (known: {', '.join(daemons) or 'none'}).")
    if not daemons:
        fail("The gateway has no Ollama backend.")
    if wanted is None and len(daemons) > 1:
        fail(f"There are several Ollama backends: name one with --backend ({', '.join(daemons)}).")
    chosen = daemons[wanted if wanted is not None else next(iter(daemons))]
    if chosen["state"] != "ready":
        fail(f"{chosen['name']}: {chosen['state']}: {chosen['reason'] or 'start it with `modelport start`'}")
    return chosen


def _show(name: str, lines: Iterator[ProgressResponse]) -> None:
    """Draw a bar for each part of the model, and print the daemon's own words for everything else."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    parts: dict[str, TaskID] = {}
    last = ""
    with Progress(*columns, console=console) as progress:
        for line in lines:
            if line.digest and line.total:
                part = parts.get(line.digest)
                if part is None:
                    part = parts[line.digest] = progress.add_task(line.status or line.digest, total=line.total)
                progress.update(part, completed=line.completed or 0)
            elif line.status and line.status != last:
                last = line.status
                progress.console.print(last, markup=False, highlight=False)
    if last != "success":
        fail(f"{name}: the daemon ended the download without reporting success.")
