"""`modelport top`: its figures, how it looks, and the whole of it on a real terminal with a real gateway."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from app.__main__ import cli
from app.cli import top as top_verb
from app.cli.top_figures import Look, look, overview, quantile
from app.cli.top_keys import KeyLine
from app.cli.top_screen import cut, grids, screen, title
from tests.rigs.serving import Gateway, environment, running, until
from tests.rigs.terminal import on_a_terminal

METRICS = """
# TYPE gen_ai_server_request_duration_seconds histogram
gen_ai_server_request_duration_seconds_bucket{gen_ai_request_model="tiny",le="+Inf"} REQUESTS
gen_ai_server_request_duration_seconds_count{gen_ai_request_model="tiny",error_type=""} REQUESTS
gen_ai_server_request_duration_seconds_count{gen_ai_request_model="tiny",error_type="timeout"} 3.0
# TYPE gen_ai_client_token_usage histogram
gen_ai_client_token_usage_sum{gen_ai_request_model="tiny",gen_ai_token_type="output"} OUTPUT
gen_ai_client_token_usage_sum{gen_ai_request_model="tiny",gen_ai_token_type="input"} 40.0
# TYPE gen_ai_server_time_to_first_token_seconds histogram
gen_ai_server_time_to_first_token_seconds_bucket{gen_ai_request_model="tiny",le="0.1"} FAST
gen_ai_server_time_to_first_token_seconds_bucket{gen_ai_request_model="tiny",le="0.5"} REQUESTS
gen_ai_server_time_to_first_token_seconds_bucket{gen_ai_request_model="tiny",le="+Inf"} REQUESTS
# TYPE modelport_in_flight gauge
modelport_in_flight{gen_ai_request_model="tiny",modelport_backend="demo"} 2.0
modelport_in_flight{gen_ai_request_model="tiny",modelport_backend="other"} 1.0
# TYPE modelport_gpu_memory_used_bytes gauge
modelport_gpu_memory_used_bytes{device="GPU-1"} 4e+10
modelport_gpu_memory_total_bytes{device="GPU-1"} 8e+10
modelport_gpu_utilization_ratio{device="GPU-1"} 0.75
"""
KEYS = """
# TYPE modelport_key_requests counter
modelport_key_requests_total{key="office"} REQUESTS
modelport_key_requests_total{key="idle"} 0.0
# TYPE modelport_key_tokens counter
modelport_key_tokens_total{key="office",gen_ai_token_type="input"} 40.0
modelport_key_tokens_total{key="office",gen_ai_token_type="output"} OUTPUT
# TYPE modelport_key_money counter
modelport_key_money_total{key="office"} 1.5
# TYPE modelport_limited counter
modelport_limited_total{key="office",limit="rpm"} 3.0
modelport_limited_total{key="office",limit="tpm"} 4.0
# TYPE modelport_key_limit_ratio gauge
modelport_key_limit_ratio{key="office",limit="rpm"} 0.5
modelport_key_limit_ratio{key="office",limit="budget"} 0.93
modelport_key_limit_ratio{key="fresh",limit="rpm"} 0.0
# TYPE modelport_store_up gauge
modelport_store_up UP
# TYPE modelport_gateways gauge
modelport_gateways 3.0
# TYPE modelport_usage_pending gauge
modelport_usage_pending 1200.0
"""


def metrics(requests: int, output: int, fast: int = 0) -> str:
    text = METRICS.replace("REQUESTS", f"{requests}.0").replace("OUTPUT", f"{output}.0")
    return text.replace("FAST", f"{fast}.0")


def backend(name: str, state: str = "ready", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "llama_cpp",
        "state": state,
        "since_s": 75.0,
        "in_flight": 3,
        "waiting": 1,
        "restarts": 0,
        "devices": [],
        "reason": None,
        "last_failure": None,
        **more,
    }


def status(pid: int = 7, models: int = 1, **more: Any) -> Mapping[str, Any]:
    names = ["tiny", *(f"model-{index}" for index in range(1, models))]
    health = {
        "version": "0.1.0",
        "status": "ok",
        "uptime_s": 3700.0,
        "models": [{"name": name, "state": "ready"} for name in names],
        "backends": [backend("demo"), backend("dead", "failed", reason="no memory\x1b[31m")],
    }
    return {"pid": pid, "address": "http://127.0.0.1:8000", "leases": 3, "health": {**health, **more}}


def two_looks(**more: Any) -> tuple[Look, Look]:
    before = look(100.0, status(), metrics(10, 1000, 10))
    return look(110.0, status(**more), metrics(30, 1500, 10)), before


# -- figures


def with_keys(requests: int, output: int, up: int = 1) -> str:
    text = KEYS.replace("REQUESTS", f"{requests}.0").replace("OUTPUT", f"{output}.0").replace("UP", f"{up}.0")
    return metrics(requests, output) + text


def test_keys_have_what_they_ask_for_and_the_limit_that_is_nearest_to_its_end() -> None:
    view = overview(
        look(110.0, status(), with_keys(30, 1500)),
        look(100.0, status(), with_keys(10, 1000)),
    )

    assert view.keys == (
        KeyLine("fresh", 0.0, 0.0, 0.0, 0, ("rpm", 0.0)),
        KeyLine("office", 2.0, 50.0, 1.5, 7, ("budget", 0.93)),
    )
    assert ("office", "2.0", "50.0", "budget 93%", "7", "1.50") in grids(view)[2].rows


def test_keys_of_one_look_have_no_rates() -> None:
    view = overview(look(110.0, status(), with_keys(30, 1500)), None)

    assert [(key.requests_s, key.tokens_s) for key in view.keys] == [(None, None)] * 2


def test_the_first_line_says_when_the_store_is_away_and_how_many_share_it() -> None:
    here = overview(look(110.0, status(), with_keys(30, 1500)), None)
    away = overview(look(110.0, status(), with_keys(30, 1500, up=0)), None)
    without = overview(look(110.0, status(), metrics(1, 1)), None)

    assert ", 3 gateways, up" in title(here, 1000)
    assert ", the store is away, 3 gateways, 1200 usage records not in the store, up" in title(away, 1000)
    assert "gateways" not in title(without, 1000)
    assert without.store is None


def test_rates_are_what_was_counted_between_two_looks() -> None:
    view = overview(*two_looks())

    (tiny,) = view.models
    assert (tiny.requests_s, tiny.output_tokens_s, tiny.input_tokens_s) == (2.0, 50.0, 0.0)
    assert (view.requests_s, view.output_tokens_s, view.window_s) == (2.0, 50.0, 10.0)
    assert (tiny.in_flight, tiny.errors, view.in_flight, view.waiting) == (3, 3, 3, 2)
    assert (view.gpus[0].used_gb, view.gpus[0].total_gb, view.gpus[0].busy) == (40.0, 80.0, 0.75)


def test_the_first_token_is_the_median_of_the_time_between_the_looks() -> None:
    assert overview(*two_looks()).models[0].first_token_s == pytest.approx(0.3)  # all 20 between 0.1 and 0.5 s


def test_without_answers_in_the_meantime_it_is_that_of_all_answers() -> None:
    now = look(110.0, status(), metrics(10, 1000, 10))

    assert overview(now, look(100.0, status(), metrics(10, 1000, 10))).models[0].first_token_s == pytest.approx(0.05)


def test_one_look_has_no_rates_and_neither_has_the_first_of_another_gateway() -> None:
    now, before = two_looks(pid=8)

    for view in (overview(now, None), overview(now, before)):
        assert (view.window_s, view.requests_s, view.models[0].output_tokens_s) == (None, None, None)
        assert view.models[0].first_token_s is not None


def test_a_name_of_a_wildcard_has_a_line_once_it_was_asked_for() -> None:
    text = metrics(1, 1).replace('"tiny"', '"ollama/*"')

    assert [each.name for each in overview(look(1.0, status(), text), None).models] == ["tiny", "ollama/*"]


QUANTILES = [
    ({}, None),
    ({1.0: 0.0, float("inf"): 0.0}, None),
    ({1.0: 10.0, float("inf"): 10.0}, 0.5),
    ({1.0: 0.0, 2.0: 10.0, float("inf"): 10.0}, 1.5),
    ({1.0: 0.0, float("inf"): 10.0}, 1.0),
]


@pytest.mark.parametrize(("counts", "median"), QUANTILES)
def test_the_median_of_a_histogram_is_found_as_prometheus_does(
    counts: Mapping[float, float], median: float | None
) -> None:
    assert quantile(0.5, counts) == median


# -- looks


def drawn(width: int, height: int, trouble: str | None = None, models: int = 1) -> list[str]:
    now, before = two_looks(models=models)
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(screen(overview(now, before), trouble, width, height))
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    return [line.rstrip() for line in str(text).splitlines()]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_names_and_states_are_always_there(width: int) -> None:
    lines = drawn(width, 30)

    assert max(map(len, lines)) <= width
    assert any(line.startswith("tiny") and "ready" in line for line in lines)
    assert any(line.startswith("dead") and "failed" in line for line in lines)


def test_a_wide_terminal_shows_everything() -> None:
    text = "\n".join(drawn(160, 30))

    for words in ("tokens/s", "first token", "300 ms", "requests/s", "50.0", "no memory", "40.0 of 80.0 GB", "75%"):
        assert words in text
    assert "\x1b" not in text


@pytest.mark.parametrize("height", [12, 20, 24, 40])
def test_a_low_terminal_shows_fewer_rows_and_says_how_many_are_missing(height: int) -> None:
    lines = drawn(100, height, models=50)

    shown = [line for line in lines if line.startswith(("tiny", "model-"))]
    (left_out,) = [int(line.split()[1]) for line in lines if line.startswith("… ")][:1]
    assert left_out == 50 - len(shown)
    assert len(lines) <= max(height, 16)
    assert any(line.startswith("dead") for line in lines) or height < 16


def test_nothing_is_cut_where_all_has_room() -> None:
    tables = grids(overview(*two_looks()))

    assert [left_out for _, left_out in cut(tables, 40)] == [0, 0, 0]


def test_a_gateway_that_is_gone_leaves_what_was_seen_last() -> None:
    lines = drawn(100, 30, trouble="The gateway is not there: it ended. Waiting for it …")

    assert lines[1].startswith("The gateway is not there")
    assert any(line.startswith("tiny") for line in lines)


def test_the_title_loses_its_end_first() -> None:
    view = overview(*two_looks())

    assert title(view, 200).endswith("http://127.0.0.1:8000")
    assert title(view, 30) == "modelport 0.1.0: ok"


# -- on a terminal


def command(gateway: Gateway, *options: str) -> list[str]:
    return [sys.executable, "-P", "-m", "app", "top", "--state", str(gateway.state), "--interval", "0.2", *options]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that has answered."""
    with running(tmp_path_factory.mktemp("gateway"), start="demand") as gateway:
        until(lambda: httpx.get(f"{gateway.url}/readyz").status_code == 200)
        ask(gateway)
        yield gateway


def ask(gateway: Gateway) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "stream": True}
    assert httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60).status_code == 200


@pytest.mark.parametrize("end", [b"q", b"\x03", "TERM"], ids=["q", "Ctrl-C", "TERM"])
def test_it_shows_the_gateway_and_ends_cleanly(shared: Gateway, end: bytes | str) -> None:
    with on_a_terminal(command(shared), environment()) as terminal:
        terminal.wait_for(r"modelport \S+: ok[\s\S]*tiny +ready[\s\S]*demo +ready")
        if isinstance(end, bytes):
            terminal.press(end)
        else:
            terminal.process.send_signal(signal.SIGTERM)

        assert terminal.ended() == 0
        assert terminal.is_as_before()
        assert b"Traceback" not in terminal.drawn
        # The screen as it was before, with a cursor.
        assert terminal.drawn.rindex(b"\x1b[?1049l") > terminal.drawn.rindex(b"\x1b[?1049h")
        assert terminal.drawn.rindex(b"\x1b[?25h") > terminal.drawn.rindex(b"\x1b[?25l")


def test_it_follows_the_size_the_engine_and_the_gateway(tmp_path: Path) -> None:
    with running(tmp_path, start="demand") as gateway:
        until(lambda: httpx.get(f"{gateway.url}/readyz").status_code == 200)
        with on_a_terminal(command(gateway), environment()) as terminal:
            terminal.wait_for(r"tiny +stopped")
            ask(gateway)
            terminal.wait_for(r"tiny +ready[\s\S]*\d ms|tiny +ready[\s\S]*\d s")
            terminal.resize(38, 14)
            terminal.wait_for(r"model +state +in flight\s*\r?\n")
            assert gateway.end() == 0
            terminal.wait_for("The gateway is not there: no gateway")
            with running(tmp_path, start="demand") as again:
                until(lambda: httpx.get(f"{again.url}/readyz").status_code == 200)
                terminal.read()

                terminal.wait_for(r"modelport \S+: ok")

                terminal.press(b"q")
                assert terminal.ended() == 0


def test_without_a_terminal_it_looks_twice_and_prints_once(shared: Gateway) -> None:
    plain = subprocess.run(command(shared), env=environment(), capture_output=True, text=True, check=True)
    as_json = subprocess.run(command(shared, "--json"), env=environment(), capture_output=True, text=True, check=True)

    document = json.loads(as_json.stdout)
    assert plain.stderr == as_json.stderr == ""
    assert plain.stdout.startswith("modelport ")
    assert "\x1b" not in plain.stdout
    assert "tiny" in plain.stdout
    assert [each["name"] for each in document["models"]] == ["tiny"]
    assert document["models"][0]["first_token_s"] > 0
    assert document["backends"][0]["state"] == "ready"
    assert document["window_s"] > 0


def test_without_a_gateway_it_says_so(tmp_path: Path) -> None:
    nothing = [sys.executable, "-P", "-m", "app", "top", "--state", str(tmp_path / "state")]

    with on_a_terminal(nothing, environment()) as terminal:
        assert terminal.ended() == 3
        assert b"No gateway is running" in terminal.drawn


def test_a_gateway_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_verb, "_ANSWER_S", 0.2)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()
        done = CliRunner().invoke(cli(), ["top", "--once", "--state", str(tmp_path)])

    assert done.exit_code == 1
    assert "The gateway did not answer within" in done.output
