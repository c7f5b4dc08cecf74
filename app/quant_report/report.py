"""The whole way: the unquantised file, its quantised forms, the text, what is measured, and what is written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final, Protocol

from app.conversion.errors import ConversionError
from app.conversion.progress import ProgressReport
from app.quant_report import rendering
from app.quant_report.choice import recommend
from app.quant_report.figures import Measured, Quality, QuantReport, Row, Scores, quality
from app.quant_report.files import Maker, ModelFile, check_comparable, check_types
from app.quant_report.measuring import (
    BOTH,
    CHART,
    EXACT,
    PROVEN_ENGINE,
    TOP_LOGPROBS,
    Session,
    Tell,
    Tokens,
    Workbench,
    tokens,
)
from app.quant_report.passages import EvalText, Passage, plain, read
from app.quant_report.windows import Window, windows
from app.quant_report.work_folder import Remembered, ReportProblem, locked, scratch, write_file
from app.supervisor.capacity.devices import free_memory_gb
from backends.model_files.digests import file_digest
from backends.process.cores import usable_cores
from backends.toolenv.child import call
from backends.toolenv.environment import Toolbox
from backends.toolenv.failures import ToolError

_FEW_TOKENS: Final = 2_000
_SLACK_BYTES: Final = 300_000_000  # an interpreter, numpy, the KV cache of a short context
_ROWS_AT_ONCE: Final = 3  # windows' logits in memory: the library's, ours, the reference's


class ReportProgress(ProgressReport, Tell, Protocol):
    """Who is told how far the report is: files in bytes, measuring in tokens."""


@dataclass(frozen=True, slots=True)
class ReportOrder:
    """What is wanted. `source`: a folder in Hugging Face layout, an adapter's, or a GGUF file; `quants`: types, or GGUF
    files; `eval_file`: None for the text that comes with us; `most_tokens` of it are taken; `is_plain`: conversations
    are not rendered by the chat template. `within`: the loss of perplexity that is allowed.
    """

    source: Path
    quants: tuple[str, ...]
    out: Path
    eval_file: Path | None = None
    method: str = EXACT
    window: int = 512
    stride: int = 256
    most_tokens: int = 8192
    threads: int = field(default_factory=usable_cores)
    within: float = 0.02
    is_plain: bool = False
    base: Path | None = None
    trust_remote_code: bool = False


def quant_report(order: ReportOrder, toolbox: Toolbox, progress: ReportProgress) -> QuantReport:
    """Make what is missing, measure what is not known yet, and write report.json, report.md and report.png.

    Blocks for as long as that takes. Raises ReportProblem, TextProblem, ConversionError or ToolError, each with one
    sentence; files that were made and results stay for the next time.
    """
    _check(order)
    text = read(order.eval_file)
    if order.source.is_file():
        check_memory(order.source.stat().st_size, order.source.name, order, 0, free_memory_gb())
    with locked(order.out):
        numpy_python = toolbox.python("report")
        maker = Maker(order.source, order.out, toolbox, progress, order.base, order.trust_remote_code)
        reference = maker.reference()
        check_memory(reference.size_bytes, reference.path.name, order, reference.vocabulary, free_memory_gb())
        if reference.context_length is not None and order.window > reference.context_length:
            raise ReportProblem(f"--window {order.window} is more than the model's {reference.context_length} tokens")
        progress.step(f"{reference.path.name}: digest")
        source = _digest(reference)
        forms, unmade = _forms(maker, reference, source, order.quants)
        check_comparable(reference, forms)
        bench = Workbench(numpy_python, order.threads, order.window, call, progress)
        progress.step(f"{reference.path.name}: tokens")
        is_plain = order.is_plain or not reference.has_chat_template
        said = tokens(bench, reference.path, _rendered(text, is_plain), order.most_tokens)
        cut = windows(said.passages, said.start, order.window, order.stride)
        if not cut:
            raise ReportProblem(f"'{text.name}' has no token that could be predicted{_because(said)}")
        measured = _measured(order, bench, [reference, *forms], cut, reference.vocabulary)
        rows = _rows([reference, *forms], measured, cut)
        notes = (*unmade, *_notes(order, text, said, cut, reference, rows, is_plain))
        report = QuantReport(
            maker.stem,
            text.name,
            text.kind if text.kind == "text" else f"{text.kind}, {'plain' if is_plain else 'by its chat template'}",
            sum(len(window.predicted) for window in cut),
            len(said.passages),
            order.window,
            order.stride,
            bench.context,
            order.threads,
            _machine(),
            version("xllamacpp"),
            order.within,
            rows,
            recommend(rows[1:], rows[0], order.within),
            notes,
        )
        return _written(report, order.out, numpy_python)


def _forms(maker: Maker, reference: ModelFile, source: str, quants: Sequence[str]) -> tuple[list[ModelFile], list[str]]:
    """The quantised forms, and a sentence for each that cannot be made. Raises ConversionError where none can."""
    forms, unmade = [], []
    for quant in quants:
        try:
            forms.append(maker.quantised(reference, source, quant))
        except ConversionError as exc:
            if len(quants) == 1:
                raise
            unmade.append(f"There is no {quant}: {exc}.")
    if not forms:
        raise ConversionError(" ".join(unmade))
    return forms, unmade


def _rendered(text: EvalText, is_plain: bool) -> list[Passage]:
    return [plain(each) if is_plain else each for each in text.passages]


def _check(order: ReportOrder) -> None:
    """What can be said before any work. Raises ReportProblem."""
    if not order.source.exists():
        raise ReportProblem(f"'{order.source}' is not there: name a folder in Hugging Face layout or a GGUF file")
    if not order.quants:
        raise ReportProblem("--quants names no type: q8_0,q4_k_m is usual")
    check_types(order.quants)
    double = [each for each in order.quants if order.quants.count(each) > 1]
    if double:
        raise ReportProblem(f"--quants names {double[0]} twice")
    if not order.window >= 16:
        raise ReportProblem(f"--window {order.window} is too short: 16 tokens at least, 512 is usual")
    if not 1 <= order.stride <= order.window // 2:
        raise ReportProblem(f"--stride {order.stride} must be from 1 to half of --window ({order.window // 2})")


def check_memory(size_bytes: int, name: str, order: ReportOrder, vocabulary: int, free_gb: float | None) -> None:
    """Raises ReportProblem where the model would not fit into memory. `free_gb` None: not known."""
    needed_gb = (size_bytes + _SLACK_BYTES + _ROWS_AT_ONCE * order.window * vocabulary * 4) / 1e9
    if free_gb is not None and needed_gb > free_gb:
        raise ReportProblem(
            f"'{name}' does not fit into memory: it takes about {needed_gb:.1f} GB, and {free_gb:.1f} GB are free; end "
            "other engines, or make the report on a machine with more memory"
        )


def _measured(
    order: ReportOrder, bench: Workbench, files: Sequence[ModelFile], cut: Sequence[Window], vocabulary: int
) -> list[Measured]:
    """What was measured of each file, the reference first; what is remembered is not measured again."""
    remembered = Remembered(order.out)
    keys = _keys(order, bench, files, cut)
    known = [remembered.get(key) for key in keys]
    if all(each is not None for each in known):
        return [each for each in known if each is not None]
    predicted = sum(len(window.predicted) for window in cut)
    if order.method != TOP_LOGPROBS:
        _check_disk(order.out, predicted * vocabulary * 4)
    results = []
    with scratch(order.out) as logits:
        session = Session(bench, files[0].path, cut, order.method, logits)
        for index, (file, key) in enumerate(zip(files, keys, strict=True)):
            measured = session.reference() if index == 0 else known[index] or session.compared(file.path)
            remembered.put(key, measured)
            results.append(measured)
        if results[0].approximate is None and any(each.exact is None for each in results):
            results[0] = dataclasses.replace(results[0], approximate=session.reference_bounds())
            remembered.put(keys[0], results[0])
    return results


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ReportProblem(
            f"'{folder}' has {free / 1e9:.1f} GB free, and the unquantised model's logits take {needed / 1e9:.1f} GB "
            "while the others are measured: make room, take fewer with --tokens, or name another folder with --out"
        )


def _keys(order: ReportOrder, bench: Workbench, files: Sequence[ModelFile], cut: Sequence[Window]) -> list[str]:
    """Everything that a result depends on, as one digest for each file."""
    shared = hashlib.sha256(repr((1, order.method, bench.threads, bench.size, version("xllamacpp"))).encode())
    for window in cut:
        shared.update(repr((window.passage, window.tokens, window.first)).encode())
    bench.tell.step("digests of the files")
    digests = [_digest(file) for file in files]
    base = f"{shared.hexdigest()} {digests[0]}"
    return [hashlib.sha256(f"{base} {each}".encode()).hexdigest() for each in digests]


def _digest(file: ModelFile) -> str:
    try:
        return file_digest(file.path)
    except OSError as exc:
        raise ReportProblem(f"'{file.path}' cannot be read: {exc.strerror or exc}") from exc


def _rows(files: Sequence[ModelFile], measured: Sequence[Measured], cut: Sequence[Window]) -> tuple[Row, ...]:
    rows = []
    first = measured[0]
    for index, (file, each) in enumerate(zip(files, measured, strict=True)):
        exact = _quality(each.exact, first.exact if index else None, cut, is_exact=True)
        approximate = _quality(each.approximate, first.approximate if index else None, cut, is_exact=False)
        best = exact or approximate
        assert best is not None, "each file is measured by one of the methods"
        rows.append(
            Row(
                file.name,
                str(file.path),
                file.size_bytes,
                file.contents.bits_per_weight,
                each.speed,
                best,
                approximate if exact else None,
                each.difference,
            )
        )
    return tuple(rows)


def _quality(
    scores: Scores | None, reference: Scores | None, cut: Sequence[Window], *, is_exact: bool
) -> Quality | None:
    return quality(scores, reference, cut, is_exact=is_exact) if scores is not None else None


def _because(said: Tokens) -> str:
    return f": the chat template refuses its conversations ({said.first_refusal})" if said.refused else ""


def _notes(
    order: ReportOrder,
    text: EvalText,
    said: Tokens,
    cut: Sequence[Window],
    reference: ModelFile,
    rows: Sequence[Row],
    is_plain: bool,
) -> tuple[str, ...]:
    """What else has to be known, a sentence each."""
    predicted = sum(len(window.predicted) for window in cut)
    notes = []
    if reference.is_quantized:
        notes.append(f"{reference.name} is quantised itself: losses are against it, not against the model as trained.")
    if predicted < _FEW_TOKENS:
        notes.append(f"The text is short ({predicted:,} tokens): {_FEW_TOKENS:,} or more make the intervals useful.")
    if text.skipped:
        notes.append(f"{text.skipped} records could not be used; the first: {text.first_skipped}.")
    if said.refused:
        notes.append(f"{said.refused} conversations cannot be rendered; the first: {said.first_refusal}.")
    if is_plain and not order.is_plain and any(each.messages for each in text.passages):
        notes.append("The model has no chat template, so conversations are plain text.")
    approximate = [row.name for row in rows if not row.quality.is_exact]
    if approximate and order.method != TOP_LOGPROBS:
        notes.append(
            f"{', '.join(approximate)}: logits of llama.cpp's library (xllamacpp {version('xllamacpp')}, seen "
            f"working: {PROVEN_ENGINE}) did not agree with the engine: its figures are lower bounds by `top_logprobs`."
        )
    if approximate or order.method == BOTH:
        notes.append("≥: a lower bound by `top_logprobs`; ≈: a quotient of two such bounds.")
    return tuple(notes)


def _machine() -> str:
    """The processor, as the system calls it."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _written(report: QuantReport, out: Path, numpy_python: Path) -> QuantReport:
    """Write all three files; a chart that cannot be drawn is a note."""
    chart = out / "report.png"
    request = {
        "out": str(chart),
        "title": f"{report.model}: {report.tokens:,} tokens of {report.text_name}",
        "limit": report.within * 100,
        "rows": rendering.chart_rows(report),
    }
    try:
        call(numpy_python, CHART, request)
        report = dataclasses.replace(report, chart=chart.name)
    except ToolError as exc:
        report = dataclasses.replace(report, notes=(*report.notes, f"There is no chart: {exc}."))
    write_file(out / "report.md", rendering.markdown(report).encode())
    text = json.dumps(dataclasses.asdict(report), indent=2, ensure_ascii=False)
    write_file(out / "report.json", text.encode() + b"\n")
    return report
