"""Prometheus's text format, as an engine may write it, and as it is written again."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.supervisor.metrics.engines.text_format import BadPage, joined, labelled, parse, write
from tests import ROOT

VLLM = rb"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a \"b\" \\ c"} 2.0
# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="m"} 1.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 3.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 3.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 1.5e-05
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{engine="0",model_name="m"} 1.7e+09
"""


def _samples(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(page.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_a_page_is_written_as_it_was_read() -> None:
    assert write(parse(VLLM).values()) == VLLM


@pytest.mark.parametrize("engine", ["vllm", "llama_cpp"])
def test_what_a_real_engine_shows_is_written_whole(engine: str) -> None:
    shown = (ROOT / f"tests/recorded/{engine}/metrics.prom").read_bytes()

    families = parse(shown)

    assert len(families) > 10
    assert [line.rstrip() for line in write(families.values()).splitlines()] == [
        line.rstrip() for line in shown.splitlines()
    ]
    assert len(_samples(write(joined({engine: families}, "backend")))) == len(_samples(shown))


def test_each_series_gets_its_pages_name() -> None:
    page = write(joined({"one": parse(VLLM), 'quo"te': parse(b"up 1\n")}, "backend"))

    samples = _samples(page)
    running = (("backend", "one"), ("engine", "0"), ("model_name", 'a "b" \\ c'))
    assert samples[("vllm:num_requests_running", running)] == 2
    assert samples[("up", (("backend", 'quo"te'),))] == 1
    assert len(samples) == 7
    assert all(dict(labels)["backend"] for _, labels in samples)


def test_a_label_of_that_name_is_kept_as_an_exported_one() -> None:
    assert labelled((("backend", "cuda"), ("le", "1")), "backend", "gpu") == (
        ("backend", "gpu"),
        ("exported_backend", "cuda"),
        ("le", "1"),
    )
    twice = (("exported_backend", "x"), ("backend", "cuda"))
    assert labelled(twice, "backend", "gpu") == (
        ("backend", "gpu"),
        ("exported_backend", "x"),
        ("exported_exported_backend", "cuda"),
    )


def test_a_family_of_two_pages_is_written_once() -> None:
    page = write(joined({"one": parse(VLLM), "two": parse(VLLM)}, "backend"))

    assert page.count(b"# TYPE vllm:num_requests_running gauge") == 1
    lines = page.decode().splitlines()
    described = lines.index("# TYPE vllm:num_requests_running gauge")
    assert [line.startswith("vllm:num_requests_running{") for line in lines[described + 1 : described + 3]] == [
        True
    ] * 2


def test_a_family_that_two_pages_describe_differently_has_no_kind() -> None:
    one, two = parse(b"# HELP x one\n# TYPE x gauge\nx 1\n"), parse(b"# TYPE x counter\nx 2\n")

    assert write(joined({"one": one, "two": two}, "backend")) == b'x{backend="one"} 1\nx{backend="two"} 2\n'


GOOD = {
    "blanks": (b'  x { a = "1" , b="2", }  3  1700000000000  \n', b'x{a="1",b="2"} 3 1700000000000\n'),
    "no labels": (b"x{} 1\n", b"x 1\n"),
    "not a number": (b"x NaN\ny +Inf\nz -Inf\n", b"x NaN\ny +Inf\nz -Inf\n"),
    "braces and commas in a label": (b'x{a="},{\\"",b="="} 1\n', b'x{a="},{\\"",b="="} 1\n'),
    "a comment": (b"# just so\n#\n# TYPE\nx 1\n", b"x 1\n"),
    "OpenMetrics": (b"# TYPE x unknown\n# UNIT x seconds\nx 1\n# EOF\n", b"# TYPE x untyped\nx 1\n"),
    "lines of Windows": (b"# TYPE x gauge\r\nx 1\r\n", b"# TYPE x gauge\nx 1\n"),
    "no end of line": (b"x 1", b"x 1\n"),
    "a series twice": (b'x{a="1",b="2"} 1\nx{b="2",a="1"} 2\n', b'x{a="1",b="2"} 1\n'),
    "a name that only looks like a histogram's": (
        b"# TYPE x gauge\nx 1\nx_count 2\n",
        b"# TYPE x gauge\nx 1\nx_count 2\n",
    ),
    "nothing": (b"", b""),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_prometheus_takes_is_taken(case: str) -> None:
    given, written = GOOD[case]

    assert write(parse(given).values()) == written


BAD = {
    "a web page": b"<html><body>not here</body></html>\n",
    "JSON": b'{"error": "no"}\n',
    "no value": b"x\n",
    "a value that is none": b"x one\n",
    "two values": b"x 1 2 3\n",
    "an open brace": b'x{a="1" 1\n',
    "an open quote": b'x{a="1} 1\n',
    "a label without a value": b"x{a} 1\n",
    "a label twice": b'x{a="1",a="2"} 1\n',
    "no comma": b'x{a="1"b="2"} 1\n',
    "an escape that there is not": b'x{a="\\t"} 1\n',
    "a name with a blank": b"x y 1\n",
    "a name with a digit first": b"1x 1\n",
    "not UTF-8": b'x{a="\xff"} 1\n',
    "a good one and a bad one": b"x 1\ny\n",
    "binary": bytes(range(1, 255)),
    "a value beyond all numbers": b"x 1e999\n",
    "a value of too many digits": b"x " + b"9" * 400 + b"\n",
    "a time beyond all times": b"x 1 9223372036854775808\n",
    "a time before 1970": b"x 1 -5\n",
    "a name among the labels": b'x{__name__="y"} 1\n',
    "a stray exemplar": b'x 1 # {trace="1"} 0.5\n',
}


@pytest.mark.parametrize("case", BAD)
def test_what_prometheus_would_refuse_is_refused(case: str) -> None:
    with pytest.raises(BadPage):
        parse(BAD[case])


LONG = {
    "blanks": b"x" + b" " * 1_000_000 + b"y\n",
    "labels": b"x{" + b",".join(b'a%d=""' % number for number in range(100_000)) + b"," + b" " * 1_000_000 + b"} y\n",
    "an open brace": b"x{" + b'a="",' * 200_000 + b"\n",
    "a name": b"x" * 1_000_000 + b"\n",
    "a comment": b"# HELP x" + b" " * 1_000_000 + b"\ny\n",
}


@pytest.mark.parametrize("what", LONG)
def test_a_line_that_is_very_long_is_refused_as_fast_as_any_other(what: str) -> None:
    """While it is read nothing else of the supervisor runs: in a time that grows with the square it would never end."""
    with pytest.raises(BadPage):
        parse(LONG[what])


def test_infinity_is_a_value() -> None:
    page = b"a +Inf\nb -inf\nc NaN\nd 1e300\ne 1 1700000000000\n"
    assert [value for _, _, value in parse(page)["a"].samples] == ["+Inf"]
    assert write(parse(page).values()) == page


@pytest.mark.parametrize("cut", range(len(VLLM)))
def test_a_page_that_is_cut_anywhere_never_breaks_what_is_written(cut: int) -> None:
    try:
        page = write(joined({"gpu": parse(VLLM[:cut])}, "backend"))
    except BadPage:
        return
    assert all(dict(labels)["backend"] == "gpu" for _, labels in _samples(page))


def test_a_page_without_end_is_refused() -> None:
    with pytest.raises(BadPage, match="more than"):
        parse(b"x 1\n" * 200_000)
