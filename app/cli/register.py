"""`modelport register`: from a tuned folder to names that clients can ask for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Final

import typer

from app.cli.options import STOPPED, ConfigOption, JsonOption, StateOption, TrustOption, fail, refuse_missing
from app.cli.toolbox import YesOption

FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The tuned model: a folder in Hugging Face layout, or of a LoRA.")
]
NameOption = Annotated[str, typer.Option("--name", "-n", help="The public name: what clients will write as `model`.")]
VllmOption = Annotated[bool, typer.Option("--vllm", help="Serve it with vLLM.")]
OllamaOption = Annotated[bool, typer.Option("--ollama", help="Create it in the Ollama daemon.")]
EmbeddedOption = Annotated[bool, typer.Option("--embedded", help="Serve it with the embedded engine.")]
OuttypeOption = Annotated[
    str,
    typer.Option(
        "--outtype", "--quant", "-t", help="What the GGUF file for Ollama and the embedded engine holds: q4_k_m, f16 …"
    ),
]
TemplateOption = Annotated[
    str | None,
    typer.Option("--template", help="LLaMA-Factory's name of the template that it was trained with."),
]
TrainingOption = Annotated[
    Path | None, typer.Option("--training", help="LLaMA-Factory's YAML file that it was trained with.")
]
BaseOption = Annotated[
    str | None, typer.Option("--base", help="Of a LoRA: its base, where the folder does not name it.")
]
MergeOption = Annotated[bool, typer.Option("--merge", help="Of a LoRA: vLLM gets a merged model, no adapter.")]
ContextOption = Annotated[
    int | None, typer.Option("--context", min=16, help="Tokens of context; default: the model's own.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the vLLM backend; repeatable.")
]
CommandOption = Annotated[
    str | None, typer.Option("--vllm-command", help="vLLM's program, where it is not on the PATH.")
]
UrlOption = Annotated[
    str | None, typer.Option("--ollama-url", help="The daemon, where it is not in the file or OLLAMA_HOST.")
]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Take the name from what has it in the file or in the daemon.")
]
CertificateOption = Annotated[
    bool, typer.Option("--certificate/--no-certificate", help="Prove that what is served is what was trained.")
]
ENGINES: Final = ("vllm", "ollama", "embedded")


def register(
    folder: FolderArgument,
    name: NameOption,
    vllm: VllmOption = False,
    ollama: OllamaOption = False,
    embedded: EmbeddedOption = False,
    outtype: OuttypeOption = "q8_0",
    template: TemplateOption = None,
    training: TrainingOption = None,
    base: BaseOption = None,
    merge: MergeOption = False,
    context: ContextOption = None,
    settings: SetOption = None,
    vllm_command: CommandOption = None,
    ollama_url: UrlOption = None,
    replace: ReplaceOption = False,
    certificate: CertificateOption = True,
    trust_remote_code: TrustOption = False,
    yes: YesOption = False,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a tuned model: convert it, create it in the daemon, write it into the configuration, reload, and prove it.

    A run that was stopped or killed is finished by the same command. `modelport unregister` takes it all back.
    """
    from app.cli.registering import Asked, registered

    if template is not None and training is not None:
        fail("Give --template or --training, not both: the training file names its template.", 2)
    refuse_missing(training)
    if not name.strip() or not name.isprintable() or name != name.strip() or "*" in name:
        fail(f"{name!r} is no public name: it has no blanks around it, no `*` and no invisible characters.", 2)
    asked = Asked(
        folder=folder.expanduser().absolute(),
        name=name,
        engines=tuple(each for each, is_on in zip(ENGINES, (vllm, ollama, embedded), strict=True) if is_on),
        outtype=outtype.lower(),
        template=template,
        training=training.expanduser().absolute() if training is not None else None,
        base=base,
        merge=merge,
        context=context,
        settings=tuple(settings or ()),
        vllm_command=vllm_command,
        ollama_url=ollama_url,
    )
    asked = dataclasses.replace(asked, replace=replace, certificate=certificate, trust_remote_code=trust_remote_code)
    try:
        registered(dataclasses.replace(asked, yes=yes, config=config, state=state, as_json=as_json))
    except KeyboardInterrupt:
        fail("Interrupted: the same command goes on where it was.", STOPPED)
