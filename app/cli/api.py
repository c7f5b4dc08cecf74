"""`modelport api`: the drop-in for `llamafactory-cli api`, with its flags, files and environment variables."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import (
    BAD_CONFIG,
    HostOption,
    InsecureOption,
    LogFormatOption,
    PortOption,
    StateOption,
    config_errors_reported,
    fail,
    sentence,
)
from app.cli.progress import progress_shown
from app.cli.toolbox import YesOption, tool_errors_reported, toolbox

if TYPE_CHECKING:
    from app.config.settings import ServeOptions
    from app.llamafactory.arguments import Arguments
    from app.llamafactory.configuration import ServedParts, ServingMachine
    from app.llamafactory.engine_choice import EngineChoice
    from app.llamafactory.prepare import ServedTemplate
    from backends.toolenv.environment import Toolbox


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """What the command line says beside LLaMA-Factory's flags. `state`: the folder that was named;
    `is_started`: a gateway is wanted, not only its configuration.
    """

    outtype: str | None
    yes: bool
    state: Path | None
    is_started: bool

    @property
    def is_state_chosen(self) -> bool:
        """Whether somebody has named a state folder."""
        return self.state is not None or bool(os.environ.get("MODELPORT_STATE"))


VllmOption = Annotated[
    str | None, typer.Option(help="How vLLM is called. Else MODELPORT_VLLM, else `vllm` on PATH.", show_default=False)
]
OuttypeOption = Annotated[
    str | None,
    typer.Option(
        "--outtype",
        "--quant",
        help="The type of the GGUF file for --infer_backend llama_cpp: bf16, f16, q8_0, q4_k_m … Default: q8_0.",
        show_default=False,
    ),
]
# LLaMA-Factory's flags are left as they stand, and ours may be written as those are, with `_`.
CONTEXT = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "token_normalize_func": lambda name: name.replace("_", "-"),
}


def api(
    context: typer.Context,
    vllm_command: VllmOption = None,
    outtype: OuttypeOption = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the modelport.yaml that does the same, and end.")
    ] = False,
    host: HostOption = None,
    port: PortOption = None,
    state: StateOption = None,
    insecure_no_key: InsecureOption = False,
    log_format: LogFormatOption = None,
    yes: YesOption = False,
) -> None:
    """Serve a fine-tuned model as `llamafactory-cli api` does: with its flags, or one of its YAML files.

    API_PORT=6006 API_MODEL_NAME=security modelport api --model_name_or_path DIR --template qwen --infer_backend vllm

    A YAML or JSON file may be the only argument, with `key=value` behind it. What each flag becomes:
    docs/llamafactory.md. Besides the engines of LLaMA-Factory there is --infer_backend llama_cpp, which converts the
    model to a GGUF file and needs no vLLM.
    """
    from app.llamafactory.arguments import BadArguments

    wanted = ApiOptions(outtype, yes, state, is_started=not print_config)
    with config_errors_reported(), tool_errors_reported():
        from app.config.settings import resolve

        options = resolve(
            os.environ,
            state=state,
            host=host,
            port=port,
            insecure_no_key=insecure_no_key,
            log_format=log_format,
            is_terminal=sys.stderr.isatty(),
        )
        try:
            text, lines, options = _configured(context.args, options, vllm_command, wanted)
        except BadArguments as exc:
            fail(exc.errors, BAD_CONFIG)
        if print_config:
            typer.echo("".join(f"# {line}\n" for line in lines) + text, nl=False)
            return
        typer.echo("\n".join((*lines, "")))
        from app.supervisor import main

        code = main.serve(options)
    raise typer.Exit(code)


def _configured(
    words: Sequence[str], options: ServeOptions, vllm_command: str | None, wanted: ApiOptions
) -> tuple[str, list[str], ServeOptions]:
    """The configuration's text, the lines to print, and the options of the start. What is wrong is said before
    anything that takes long begins.
    """
    import app.log
    from app.config.load import load_all
    from app.llamafactory import prepare
    from app.llamafactory.arguments import BadArguments, read
    from app.llamafactory.configuration import ServedParts, configuration
    from app.llamafactory.engine_choice import choose
    from app.llamafactory.notice import notice
    from app.llamafactory.yaml_text import as_yaml

    app.log.set_up(options.log_format, options.log_level)
    machine = _machine(options.env)
    if "*" in machine.model_name:
        raise BadArguments(f"environment: API_MODEL_NAME: '{machine.model_name}' is one whole name, without `*`")
    arguments = read(words, allow_extra=machine.is_on("ALLOW_EXTRA_ARGS"))
    if arguments.is_given("hf_hub_token"):
        os.environ["HF_TOKEN"] = arguments["hf_hub_token"]
    model = prepare.fine_tune(arguments)
    choice = choose(arguments, model, _vllm(vllm_command, options.env), outtype=wanted.outtype)
    place = prepare.local(arguments["model_name_or_path"])
    adapters = prepare.adapter_folders(arguments)
    loaded = None if choice.merges else next(iter(adapters), None)
    parts = ServedParts(str(place or arguments["model_name_or_path"]), loaded)
    # Whatever is wrong with addresses, keys, names and values is found here, before anything takes long.
    load_all(_with_text(options, as_yaml(configuration(arguments, choice, parts, model, machine))))
    options, notes = _with_state(options, is_chosen=wanted.is_state_chosen, is_started=wanted.is_started)
    tools = toolbox(wanted.state, yes=wanted.yes)
    template = prepare.served_template(arguments, options.state, tools, is_embedded=choice.kind == "llama_cpp")
    parts, of_weights = _parts(arguments, choice, parts, template, options.state, tools)
    notes = [*of_weights, *template.notes, *notes]
    tree = configuration(arguments, choice, parts, model, machine)
    text = as_yaml(tree)
    is_default_host = options.host is None and not options.env.get("API_HOST")
    lines = notice(arguments, choice, parts, machine, tree, is_default_host=is_default_host, notes=notes)
    return text, lines, _with_text(options, text)


def _parts(
    arguments: Arguments,
    choice: EngineChoice,
    parts: ServedParts,
    template: ServedTemplate,
    state: Path,
    tools: Toolbox,
) -> tuple[ServedParts, list[str]]:
    """What the engine is given: weights that are merged or converted first where it must be, and the template."""
    from app.llamafactory import prepare
    from app.llamafactory.weights import made_weights

    adapters = prepare.adapter_folders(arguments)
    place = prepare.local(arguments["model_name_or_path"])
    notes: list[str] = []
    if place is not None and (choice.kind == "llama_cpp" or choice.merges):
        trusts = bool(arguments["trust_remote_code"])
        with progress_shown() as progress:
            made, notes = made_weights(
                place, adapters, choice, state, tools, progress, template=template, trust_remote_code=trusts
            )
        parts = dataclasses.replace(parts, model=str(made))
    return prepare.served_parts(parts, template), notes


def _machine(env: Mapping[str, str]) -> ServingMachine:
    from app.llamafactory.configuration import ServingMachine
    from app.supervisor.capacity.devices import machine

    here = machine(None, env)
    return ServingMachine(env, len(here.gpus), is_cpu_only=not here.gpus and not here.has_unknown_gpus)


def _vllm(given: str | None, env: Mapping[str, str]) -> Sequence[str] | None:
    """The words that call vLLM: those given, else MODELPORT_VLLM's, else `vllm` on PATH; None where there is none."""
    if words := shlex.split(given or env.get("MODELPORT_VLLM", "")):
        return words
    program = shutil.which("vllm")
    return [program] if program is not None else None


def _with_text(options: ServeOptions, text: str) -> ServeOptions:
    return dataclasses.replace(options, config_path=None, config_text=text)


def _with_state(options: ServeOptions, *, is_chosen: bool, is_started: bool) -> tuple[ServeOptions, list[str]]:
    """The options with a state folder that is free: several servers on their own ports are several gateways here, and
    LLaMA-Factory's need no folder to be named. One that was named is refused where a gateway runs on it, if this one
    `is_started`: before anything takes long.
    """
    from app.config.settings import Settings, state_folder
    from app.supervisor.state_folder import StateError, check_free, is_held, prepare

    notes = []
    if not is_chosen and is_held(options.state):
        port = options.port if options.port is not None else Settings.from_env(options.env).api_port or 8000
        other = state_folder(options.state.with_name(f"{options.state.name}-api-{port}"))
        notes.append(f"another gateway runs on {options.state}, so this one's verbs need --state {other}")
        options = dataclasses.replace(options, state=other)
    try:
        prepare(options.state)
        if is_started:
            check_free(options.state)
    except StateError as exc:
        fail(sentence(exc))
    return options, notes
