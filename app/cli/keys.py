"""`modelport keys new | list | edit | rotate | revoke`: keys for clients, in the store or in the configuration file."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from app.cli.key_options import OptionError, fields, is_over, limits_in_words, seconds
from app.cli.options import BAD_CONFIG, NO_GATEWAY, JsonOption, StateOption, fail, print_json, warn
from app.cli.tables import show

NameArgument = Annotated[str, typer.Argument(help="Whose key it is; its name or, in the store, its id.")]
FileOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Of this configuration file, and not of the store.", show_default=False),
]
ModelsOption = Annotated[
    str | None, typer.Option(help="The models it opens, comma separated; all: every one.", show_default=False)
]
RoleOption = Annotated[
    Literal["user", "admin"] | None,
    typer.Option(help="`admin` may also see and steer the gateway.", show_default=False),
]
TeamOption = Annotated[str | None, typer.Option(help="Whom its usage is shown with.", show_default=False)]
DaysOption = Annotated[
    int | None, typer.Option(min=1, max=36_500, help="Days until it ends. Else never.", show_default=False)
]
ExpiresOption = Annotated[
    str | None, typer.Option(help="The day or time it ends: 2027-12-31; none: never.", show_default=False)
]
PriorityOption = Annotated[
    Literal["interactive", "batch"] | None,
    typer.Option(help="`batch`: where requests wait, those of other keys come first.", show_default=False),
]
RpmOption = Annotated[str | None, typer.Option(help="Requests in any 60 seconds.", show_default=False)]
TpmOption = Annotated[
    str | None, typer.Option(help="Tokens in any 60 seconds, of prompts and answers.", show_default=False)
]
ParallelOption = Annotated[str | None, typer.Option(help="Requests at the same time.", show_default=False)]
BudgetOption = Annotated[
    str | None, typer.Option(help="'5M tokens per week' or '20 money per month'.", show_default=False)
]


def verbs() -> typer.Typer:
    """The commands under `modelport keys`."""
    app = typer.Typer(help="Keys for clients: make, list, change and end them.", no_args_is_help=True)
    app.command("new")(new_key)
    app.command("list")(list_keys)
    app.command("edit")(edit_key)
    app.command("rotate")(rotate_key)
    app.command("revoke")(revoke_key)
    return app


def new_key(
    name: Annotated[str, typer.Argument(help="Whose key it is; shown in logs.")],
    models: ModelsOption = None,
    role: RoleOption = None,
    team: TeamOption = None,
    days: DaysOption = None,
    expires: ExpiresOption = None,
    priority: PriorityOption = None,
    rpm: RpmOption = None,
    tpm: TpmOption = None,
    max_parallel: ParallelOption = None,
    budget: BudgetOption = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Write it into this configuration file.", show_default=False)
    ] = None,
    entry: Annotated[
        bool, typer.Option("--entry", help="Write it nowhere: print the entry for a configuration file.")
    ] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it once; only its digest is kept. It goes into the store where a gateway runs or a store is
    configured, else its entry for the file is printed.
    """
    from app.cli import keys_in_file, keys_in_store
    from app.keys import new

    terms = _fields(models, role, team, days, expires, priority, rpm, tpm, max_parallel, budget)
    given = {field: value for field, value in terms.items() if value is not None and _DEFAULTS.get(field) != value}
    if "expires" in given and is_over(given["expires"], datetime.datetime.now(datetime.UTC)):
        fail(f"--expires '{expires}' is over already: such a key opens nothing.", BAD_CONFIG)
    secret, sha256 = new(name)
    made = {"name": name, "sha256": sha256, **given}
    if config is not None:
        keys_in_file.add(config, made)
    store = None if config is not None or entry else keys_in_store.keys_at(state)
    answer = store.order("new", None, made) if store is not None else None
    if as_json:
        print_json({"key": secret, "entry": made if answer is None else answer["entry"]})
        return
    typer.echo(f"The key, shown only now:\n\n  {secret}\n")
    if store is not None and answer is not None:
        typer.echo(f"{_place(store)}: added {name} ({answer['entry']['id']}). {store.when}")
        if len(store.listed()["data"]) == 1:
            typer.echo("It is the first one: from now on the gateway asks everybody for a key.")
        _warn_of_prices(store, answer["entry"])
    elif config is not None:
        typer.echo(f"{config}: added {name}. A running gateway takes it with `modelport reload`.")
    else:
        from app.config.yaml_edit import scalar

        typer.echo("Its entry, to be put into modelport.yaml (`--config FILE` writes it there):\n")
        typer.echo(f"keys:\n  - {scalar(made)}")


def list_keys(config: FileOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """List the keys of the configuration and of the store, with what they open and may use."""
    from app.cli import keys_in_file

    if config is not None:
        answer: Any = {"data": keys_in_file.keys_of(config), "store": None, "store_down": None}
    elif (store := _store(state)) is not None:
        answer = store.listed()
    else:
        from app.config.settings import config_path

        path = config_path(None)
        answer = {"data": keys_in_file.keys_of(path) if path is not None else [], "store": None, "store_down": None}
    if as_json:
        print_json(answer)
        return
    if answer["store_down"] is not None:
        warn(f"The store does not answer; its keys are as they were last known: {answer['store_down']}")
    if not answer["data"]:
        typer.echo("There is no key: make one with `modelport keys new NAME`.")
        return
    show(
        ("key", "kept in", "state", "team", "role", "models", "limits", "priority", "expires", "id"),
        [_row(key) for key in answer["data"]],
    )


def edit_key(
    name: NameArgument,
    new_name: Annotated[str | None, typer.Option("--name", help="Another name for it.", show_default=False)] = None,
    models: ModelsOption = None,
    role: RoleOption = None,
    team: TeamOption = None,
    days: DaysOption = None,
    expires: ExpiresOption = None,
    priority: PriorityOption = None,
    rpm: RpmOption = None,
    tpm: TpmOption = None,
    max_parallel: ParallelOption = None,
    budget: BudgetOption = None,
    config: FileOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change what a key opens and may use. What is not named stays; `none` takes a limit, a team or an end away."""
    changes = _fields(models, role, team, days, expires, priority, rpm, tpm, max_parallel, budget)
    if new_name is not None:
        changes = {"name": new_name, **changes}
    if not changes:
        fail("Nothing to change: see `modelport keys edit --help` for what there is.", BAD_CONFIG)
    if config is not None:
        from app.cli import keys_in_file

        keys_in_file.edit(config, name, changes)
        _said_of_file(config, f"changed {name}", as_json, {"name": new_name or name, **changes})
        return
    store = _needed(state)
    answer = store.order("edit", name, changes)
    _said(store, f"changed {name}", answer, as_json)
    _warn_of_prices(store, answer)


def rotate_key(
    name: NameArgument,
    grace: Annotated[str, typer.Option(help="For how long the old one still works: 0, 15m, 24h, 7d.")] = "24h",
    config: FileOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a key a new secret and print it once; the old one still works for a while."""
    from app.keys import new

    try:
        grace_s = seconds("--grace", grace)
    except OptionError as exc:
        fail(str(exc), BAD_CONFIG)
    secret, sha256 = new(name)
    if config is not None:
        from app.cli import keys_in_file

        keys_in_file.rotate(config, name, sha256, grace_s)
        answer, place, needs = {"name": name, "sha256": sha256}, str(config), " after `modelport reload`"
    else:
        store = _needed(state)
        answer = store.order("rotate", name, {"grace_s": grace_s, "sha256": sha256})["entry"]
        place, needs = _place(store), ""
    if as_json:
        print_json({"key": secret, "entry": answer})
        return
    typer.echo(f"The new key, shown only now:\n\n  {secret}\n")
    old = "the old one opens nothing any more" if grace_s == 0 else f"the old one still works for {grace}"
    typer.echo(f"{place}: {name} has a new key{needs}; {old}.")


def revoke_key(
    name: NameArgument, config: FileOption = None, state: StateOption = None, as_json: JsonOption = False
) -> None:
    """End a key for good: it is refused on every gateway within a second."""
    if config is not None:
        from app.cli import keys_in_file

        keys_in_file.revoke(config, name)
        _said_of_file(config, f"removed {name}", as_json, {"name": name})
        return
    store = _needed(state)
    _said(store, f"revoked {name}", store.order("revoke", name, None), as_json)


# What need not be said of a new key.
_DEFAULTS: dict[str, Any] = {"role": "user", "priority": "interactive"}


def _fields(
    models: str | None,
    role: str | None,
    team: str | None,
    days: int | None,
    expires: str | None,
    priority: str | None,
    rpm: str | None,
    tpm: str | None,
    max_parallel: str | None,
    budget: str | None,
) -> dict[str, Any]:
    try:
        return fields(
            team=team,
            role=role,
            models=models,
            days=days,
            expires=expires,
            priority=priority,
            rpm=rpm,
            tpm=tpm,
            max_parallel=max_parallel,
            budget=budget,
            now=datetime.datetime.now(datetime.UTC),
        )
    except OptionError as exc:
        fail(str(exc), BAD_CONFIG)


def _store(state: Path | None) -> Any:
    from app.cli import keys_in_store

    return keys_in_store.keys_at(state)


def _needed(state: Path | None) -> Any:
    store = _store(state)
    if store is None:
        fail(
            "No gateway is running here and no store is configured: name the file that the key is in with --config.",
            NO_GATEWAY,
        )
    return store


def _place(store: Any) -> str:
    from app.cli.keys_in_store import RunningGateway

    return "The gateway's store" if isinstance(store, RunningGateway) else "The store"


def _warn_of_prices(store: Any, entry: Any) -> None:
    if (entry["budget"] or {}).get("money") is not None and not store.has_prices():
        warn("No model has a `price`, so a budget of money is never spent: set it in the configuration, and reload.")


def _said(store: Any, what: str, answer: Any, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"{_place(store)}: {what}. {store.when}")


def _said_of_file(config: Path, what: str, as_json: bool, answer: Any) -> None:
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"{config}: {what}. A running gateway takes it with `modelport reload`.")


def _row(key: Any) -> tuple[str, ...]:
    return (
        key["name"],
        key["place"],
        key["state"],
        key["team"] or "",
        key["role"],
        ", ".join(key["models"]) if key["models"] is not None else "all",
        limits_in_words(key),
        "" if key["priority"] == "interactive" else key["priority"],
        (key["expires"] or "").replace("T00:00:00Z", ""),
        key.get("id", "") if key["place"] == "store" else "",
    )
