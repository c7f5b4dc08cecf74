"""`modelport quant-report`: what quantising a model cost, measured on a text."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import STOPPED, JsonOption, StateOption, TrustOption, fail, print_json, sentence
from app.cli.progress import AmountBar
from app.cli.tables import show
from app.cli.toolbox import YesOption, tool_errors_reported, toolbox

if TYPE_CHECKING:
    from app.quant_report.figures import QuantReport


class Method(StrEnum):
    """How the quality is measured."""

    EXACT = "exact"
    TOP_LOGPROBS = "top-logprobs"
    BOTH = "both"


SourceArgument = Annotated[
    Path,
    typer.Argument(help="A model's folder in Hugging Face layout, a LoRA adapter's, or an unquantised GGUF file."),
]
QuantsOption = Annotated[
    str, typer.Option("--quants", "-q", help="Types with commas between, or GGUF files that are there already.")
]
EvalOption = Annotated[
    Path | None,
    typer.Option("--eval", "-e", help="Your own text: Alpaca, ShareGPT or messages (JSON, JSONL), or plain text."),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="The folder for files and report; default: NAME-quants here.")
]
WithinOption = Annotated[float, typer.Option("--within", min=0, help="How much higher perplexity may be, in percent.")]
MethodOption = Annotated[Method, typer.Option("--method", help="From all logits, from top_logprobs, or both.")]
WindowOption = Annotated[int, typer.Option("--window", help="Tokens that the model sees at once.")]
StrideOption = Annotated[
    int | None, typer.Option("--stride", help="Tokens from one window to the next; default: half a window.")
]
TokensOption = Annotated[int, typer.Option("--tokens", min=2, help="Of a longer text, so many tokens are taken.")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads that compute; default: the cores we may use.")
]
PlainOption = Annotated[bool, typer.Option("--plain", help="Conversations as plain text, without chat template.")]
BaseOption = Annotated[
    Path | None, typer.Option("--base", help="An adapter's base model; default: what the adapter names.")
]


def quant_report(
    source: SourceArgument,
    quants: QuantsOption = "q8_0,q4_k_m",
    eval_file: EvalOption = None,
    out: OutOption = None,
    within: WithinOption = 2.0,
    method: MethodOption = Method.EXACT,
    window: WindowOption = 512,
    stride: StrideOption = None,
    tokens: TokensOption = 8192,
    threads: ThreadsOption = None,
    plain: PlainOption = False,
    base: BaseOption = None,
    trust_remote_code: TrustOption = False,
    yes: YesOption = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what quantising a model costs: size, memory, speed, perplexity, KL divergence, same first choices."""
    from app.conversion.errors import ConversionError
    from app.quant_report.passages import TextProblem
    from app.quant_report.report import ReportOrder
    from app.quant_report.report import quant_report as make
    from app.quant_report.work_folder import ReportProblem
    from backends.process.cores import usable_cores

    name = source.resolve().stem if source.is_file() else source.resolve().name
    order = ReportOrder(
        source,
        tuple(part if part.lower().endswith(".gguf") else part.lower() for part in _parts(quants)),
        (out or Path(f"{name}-quants")).expanduser().absolute(),
        eval_file,
        method.value,
        window,
        stride if stride is not None else window // 2,
        tokens,
        threads or usable_cores(),
        within / 100,
        plain,
        base,
        trust_remote_code,
    )
    try:
        with tool_errors_reported(), _Progress() as progress:
            report = make(order, toolbox(state, yes=yes), progress)
    except (ReportProblem, TextProblem, ConversionError) as exc:
        fail(sentence(exc))
    except KeyboardInterrupt:
        fail("Stopped. The same command goes on where it was.", STOPPED)
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        _print(report, order.out)


def _parts(quants: str) -> list[str]:
    return [part.strip() for part in quants.split(",") if part.strip()]


class _Progress(AmountBar):
    """Bytes while files are written, tokens while they are measured."""

    def bytes(self, done: int, total: int) -> None:
        """So many bytes are written."""
        self.update(done, total, f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB")

    def count(self, done: int, total: int) -> None:
        """So many tokens are measured."""
        self.update(done, total, f"{done:,} of {total:,} tokens")


def _print(report: QuantReport, out: Path) -> None:
    from app.quant_report import rendering

    show(rendering.SIZES, rendering.sizes(report))
    typer.echo()
    show(rendering.QUALITY, rendering.qualities(report))
    typer.echo()
    for line in rendering.bars(report):
        typer.echo(line)
    typer.echo()
    for line in rendering.facts(report):
        typer.echo(line)
    typer.echo()
    typer.echo(report.recommendation.text)
    typer.echo(f"Files and report: {out}")
