"""`modelport convert`: make a GGUF file of a fine-tuned folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import STOPPED, JsonOption, StateOption, TrustOption, fail, print_json, sentence, warn
from app.cli.progress import progress_shown
from app.cli.toolbox import YesOption, tool_errors_reported, toolbox

if TYPE_CHECKING:
    from app.conversion.conversion import Conversion


SourceArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="A model's folder in Hugging Face layout, or a LoRA adapter's.")
]
OuttypeOption = Annotated[
    str,
    typer.Option(
        "--outtype",
        "--quant",
        "-t",
        help="auto (the 16 bits that the weights have), bf16, f16, f32, q8_0, q4_k_m, …",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The file. Else FOLDER-OUTTYPE.gguf beside the folder.", show_default=False),
]
BaseOption = Annotated[
    Path | None,
    typer.Option("--base", help="The base's folder, where the adapter does not lead to it.", show_default=False),
]
TemplateOption = Annotated[
    Path | None,
    typer.Option("--chat-template", help="A file with Jinja in place of the tokenizer's.", show_default=False),
]
EosOption = Annotated[
    list[str] | None, typer.Option("--eos", help="One more token that ends an answer; may be repeated.")
]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Replace a file that was made from something else.")]


def convert(
    source: SourceArgument,
    outtype: OuttypeOption = "auto",
    out: OutOption = None,
    base: BaseOption = None,
    chat_template: TemplateOption = None,
    eos: EosOption = None,
    trust_remote_code: TrustOption = False,
    replace: ReplaceOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Make a GGUF file of a fine-tuned folder, and quantise it."""
    from app.conversion.convert import ConversionError
    from app.conversion.convert import convert as converted

    tools = toolbox(state, yes=yes)
    try:
        with tool_errors_reported(), progress_shown() as progress:
            result = converted(
                source,
                outtype,
                out,
                tools,
                progress,
                base=base,
                chat_template=_text(chat_template),
                eos=eos or (),
                trust_remote_code=trust_remote_code,
                replace=replace,
            )
    except ConversionError as exc:
        fail(sentence(exc))
    except KeyboardInterrupt:
        fail("Interrupted; nothing was left behind.", STOPPED)
    for remark in result.remarks:
        warn(f"{remark}.")
    if as_json:
        print_json(as_values(result))
    else:
        _show(result)


def as_values(result: Conversion) -> dict[str, object]:
    """What came out, for programs."""
    return {
        "path": str(result.path),
        "outtype": result.outtype,
        "size_bytes": result.size_bytes,
        "source_bytes": result.source_bytes,
        "share_of_source": round(result.size_bytes / max(result.source_bytes, 1), 4),
        "parameters": result.parameters,
        "bits_per_weight": round(result.bits_per_weight, 3),
        "source_bits_per_weight": round(result.source_bytes * 8 / max(result.parameters, 1), 3),
        "seconds": round(result.seconds, 2),
        "was_there": result.was_there,
        "remarks": list(result.remarks),
    }


def change_in_words(size_bytes: int, source_bytes: int) -> str:
    """How the file's size compares with its source's."""
    percent = round((size_bytes / max(source_bytes, 1) - 1) * 100)
    return f"{-percent} % less" if percent < 0 else f"{percent} % more" if percent > 0 else "about the same"


def _text(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text()
    except OSError as exc:
        fail(f"The chat template '{file}' cannot be read: {exc.strerror or exc}.")
    except ValueError:
        fail(f"The chat template '{file}' is not text.")


def _show(result: Conversion) -> None:
    from backends.huggingface.cache import in_words

    was = "is there already, from the same folder" if result.was_there else f"written in {result.seconds:.0f} s"
    typer.echo(f"{result.path}: {was}.")
    before = result.source_bytes * 8 / max(result.parameters, 1)
    typer.echo(
        f"{in_words(result.size_bytes)}, from {in_words(result.source_bytes)} "
        f"({change_in_words(result.size_bytes, result.source_bytes)}); "
        f"{result.bits_per_weight:.2f} bits per weight, before {before:.2f}; "
        f"{result.parameters / 1e6:,.1f} million weights."
    )
