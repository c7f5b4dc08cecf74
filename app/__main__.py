"""The command line: `modelport VERB` and `python -m app VERB`. A verb imports what it needs when it is called."""

from __future__ import annotations

from collections.abc import Callable

import typer

from app.cli import (
    adapters,
    add,
    api,
    audit,
    check,
    clean,
    compare,
    convert,
    doctor,
    examples,
    init,
    keys,
    logs,
    modelfile,
    models,
    parity,
    plan,
    probe,
    pull,
    quant_report,
    register,
    reload,
    serve,
    standard_output,
    start_stop,
    status,
    store,
    top,
    unregister,
    usage,
    version,
)


def cli() -> typer.Typer:
    """The command line with all its verbs.

    Exit codes: 0 done; 1 refused or failed; 2 bad configuration or usage; 3 no gateway is running.
    """
    app = typer.Typer(
        name="modelport",
        help="One OpenAI endpoint for the models you fine-tuned.",
        epilog="Exit codes: 0 done, 1 refused or failed, 2 bad configuration or usage, 3 no gateway is running.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    local: list[Callable[..., None]] = [
        serve.serve,
        check.check,
        doctor.doctor,
        plan.plan,
        init.init,
        add.add,
        version.version,
    ]
    for verb in local:
        app.command(rich_help_panel="Configure and run")(verb)
    app.command(rich_help_panel="Configure and run", context_settings=api.CONTEXT)(api.api)
    app.add_typer(keys.verbs(), name="keys", rich_help_panel="Configure and run")
    app.add_typer(store.verbs(), name="store", rich_help_panel="Configure and run")
    tuned: list[Callable[..., None]] = [register.register, unregister.unregister, convert.convert, modelfile.modelfile]
    proofs: list[Callable[..., None]] = [quant_report.quant_report, clean.clean]
    for verb in [*tuned, *proofs]:
        app.command(rich_help_panel="Convert and prove")(verb)
    remote: list[Callable[..., None]] = [
        models.models,
        probe.probe,
        parity.parity,
        compare.compare,
        status.status,
        audit.audit,
        top.top,
        usage.usage,
        logs.logs,
        reload.reload,
        pull.pull,
    ]
    for verb in [*remote, start_stop.start, start_stop.stop, start_stop.restart]:
        app.command(rich_help_panel="Ask the running gateway")(verb)
    app.add_typer(adapters.verbs(), name="adapters", rich_help_panel="Ask the running gateway")
    examples.attach(app)
    return app


def main() -> None:
    """Run the verb on the command line and exit with its code."""
    # Its one name, also where it is `python -m app`: a completion for that would be one for `python`.
    standard_output.run(lambda: cli()(prog_name="modelport"))


if __name__ == "__main__":
    main()
