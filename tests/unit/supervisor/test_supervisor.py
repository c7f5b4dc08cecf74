"""`modelport serve` as a user starts it: real processes, the real demo model."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.supervisor.main import SAME_SIGNAL_S
from backends.process.guard import descendants
from tests.rigs.serving import PATIENCE_S, Gateway, alive, environment, running, serve_command, until

GONE_S = 5.0

CHAT = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Count from one to fifty."}],
    "stream": True,
    "max_tokens": 100,
}


# The gateway whose fleet's task fails at SIGUSR1.
FAILING = """
import asyncio, signal
from app.supervisor.fleet import fleet
run = fleet.Fleet.run
async def failing(self):
    failed = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, failed.set)
    running = asyncio.create_task(run(self))
    await failed.wait()
    running.cancel()
    await asyncio.wait({running})
    raise RuntimeError("a bug")
fleet.Fleet.run = failing
from app.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("serve")) as gateway:
        gateway.wait_for("demo: ready in")
        yield gateway


def _refused(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*serve_command(), *options], env=environment(), capture_output=True, text=True, timeout=PATIENCE_S
    )


# -- what a user sees


def test_the_curl_line_works_as_it_is_printed(gateway: Gateway) -> None:
    line = gateway.wait_for(r"^  (curl .*)$")[1]

    answer = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=PATIENCE_S)

    assert json.loads(answer.stdout)["choices"][0]["message"]["content"]


def test_with_keys_the_curl_line_works_with_one_of_them_and_wakes_a_model_on_demand(tmp_path: Path) -> None:
    with running(tmp_path, start="demand", env={"API_KEY": "a-key"}) as gateway:
        line = gateway.wait_for(r"^  (curl .*)$")[1]

        refused, answered = (
            subprocess.run(["bash", "-c", line], env={**environment(), "API_KEY": key}, capture_output=True, text=True)
            for key in ("another", "a-key")
        )

        assert json.loads(refused.stdout)["error"]["code"] == "invalid_api_key"
        assert json.loads(answered.stdout)["choices"][0]["message"]["content"]
        assert "a-key" not in gateway.log.read_text() + "".join(gateway.printed)


def test_the_banner_tells_what_it_serves_and_how_it_gets_on(gateway: Gateway) -> None:
    gateway.wait_for("demo: ready in")

    printed = "".join(gateway.printed)
    assert re.search(
        r"^Modelport \S+ listens on http://127.0.0.1:\d+ \(only this machine can reach it\)$", printed, re.MULTILINE
    )
    assert re.search(r"^  tiny  starting  demo$", printed, re.MULTILINE)
    assert printed.index("demo: starting …") < printed.index("demo: ready in")


def test_the_public_port_shows_health_metrics_and_description(gateway: Gateway) -> None:
    with httpx.Client(base_url=gateway.url) as client:
        health, metrics, described = (client.get(path) for path in ("/health", "/metrics", "/openapi.json"))
        assert client.get("/readyz").status_code == 200

    assert health.json()["status"] == "ok"
    assert health.json()["models"][0]["name"] == "tiny"
    assert 'modelport_backend_state{modelport_backend="demo",state="ready"} 1.0' in metrics.text
    assert "/v1/chat/completions" in described.json()["paths"]


def test_every_described_route_is_there_and_takes_no_other_method(gateway: Gateway) -> None:
    described = httpx.get(f"{gateway.url}/openapi.json").json()["paths"]

    with httpx.Client(base_url=gateway.url) as client:
        for path, operations in described.items():
            real = path.format(name="nobody", model="tiny", run="none", key="nobody")
            answer = client.request("DELETE", real)
            assert answer.status_code == 405, path
            if path != "/" and not path.startswith(
                ("/api/", "/v1/messages")
            ):  # Ollama's and Anthropic's errors have no codes
                assert answer.json()["error"]["code"] == "method_not_allowed", path
            assert {method.upper() for method in operations} <= set(answer.headers["allow"].split(", ")), path
            if "get" in operations:
                assert client.get(real).status_code == client.head(real).status_code, path


def test_a_request_is_counted_for_the_name_it_asked_for(gateway: Gateway) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    assert httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30).status_code == 200

    metrics = httpx.get(f"{gateway.url}/metrics").text

    assert re.search(r'gen_ai_server_request_duration_seconds_count\{[^}]*"tiny"[^}]*\} [1-9]', metrics)


def test_with_keys_metrics_are_an_administrators_or_have_a_port_of_their_own(tmp_path: Path) -> None:
    with running(tmp_path, env={"API_KEY": "a-key"}, server=", metrics_port: 0") as gateway:
        gateway.wait_for("demo: ready in")
        lines = map(json.loads, gateway.log.read_text().splitlines())
        (own,) = (f"http://{each['address']}" for each in lines if each["event"].startswith("metrics have a port"))

        for path in ("/metrics", "/metrics/engines"):
            refused, keyless = httpx.get(f"{gateway.url}{path}"), httpx.get(f"{own}{path}")
            keyed = httpx.get(f"{gateway.url}{path}", headers={"authorization": "Bearer a-key"})

            assert [refused.status_code, keyed.status_code, keyless.status_code] == [401, 200, 200]
            names = [set(re.findall(r"^# TYPE (\S+)", answer.text, re.MULTILINE)) for answer in (keyed, keyless)]
            assert names[0] <= names[1]
        assert 'llamacpp:requests_processing{backend="demo"} 0' in keyless.text
        assert 'modelport_engine_scrape_up{backend="demo"} 1' in keyless.text
        for path in ("/health", "/admin/status", "/v1/models"):
            assert httpx.get(f"{own}{path}").status_code == 404


def test_processes_and_starts_are_measured(gateway: Gateway) -> None:
    page = gateway.metrics()

    for name in ("open_files", "open_files_limit", "resident_memory_bytes", "cpu_seconds_total"):
        assert set(re.findall(rf'^modelport_{name}{{process="(.+)"}} [1-9]', page, re.MULTILINE)) >= {"supervisor"}
    assert re.search(r'^modelport_open_files{process="relay-0"} [1-9]', page, re.MULTILINE)
    assert 'modelport_backend_start_seconds_count{how="start",modelport_backend="demo"} 1.0' in page
    until(lambda: {"relay", "supervisor"} == set(re.findall(r'lag_seconds_count{process="(.+)"}', gateway.metrics())))


# -- refusals at the start


def test_a_second_supervisor_on_the_state_folder_is_refused(gateway: Gateway) -> None:
    _ = gateway.url

    second = _refused("--config", str(gateway.config), "--state", str(gateway.state), "--port", "0")

    assert second.returncode == 1
    assert (
        f"already runs on the state folder {gateway.state} (process {gateway.process.pid}, at {gateway.url});"
        in second.stderr
    )
    assert "Traceback" not in second.stderr


def test_a_port_that_is_taken_is_refused(gateway: Gateway, tmp_path: Path) -> None:
    port = gateway.url.rpartition(":")[2]

    other = _refused("--config", str(gateway.config), "--state", str(tmp_path / "state"), "--port", port)

    assert other.returncode == 1
    assert other.stderr == f"modelport: 127.0.0.1:{port} is in use by another program; choose another port: --port\n"


def test_a_bad_configuration_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    config = tmp_path / "modelport.yaml"
    config.write_text("backends: {demo: {kind: vlm}}\nmodels: {a: {backend: nobody}}\n")

    refused = _refused("--config", str(config), "--state", str(tmp_path / "state"))

    assert refused.returncode == 2
    assert "backends.demo" in refused.stderr
    assert "nobody" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "state").exists()


# -- deaths


def test_a_killed_relay_is_replaced_and_the_engine_does_not_notice(gateway: Gateway) -> None:
    before = gateway.status()
    (relay,) = before["relays"]["pids"]
    engine = before["health"]["backends"][0]["pid"]

    os.kill(relay, signal.SIGKILL)

    until(lambda: gateway.status()["relays"]["connected"] not in ([], [relay]))
    assert httpx.get(f"{gateway.url}/readyz").status_code == 200
    after = gateway.status()
    assert after["relays"]["restarts"] == before["relays"]["restarts"] + 1
    assert after["health"]["backends"][0]["pid"] == engine


def test_the_counts_of_a_killed_relay_stay(gateway: Gateway) -> None:
    def served() -> float:
        page = gateway.metrics()
        counts = re.findall(r"^gen_ai_server_request_duration_seconds_count\{.*\} (\S+)$", page, re.MULTILINE)
        return sum(float(count) for count in counts)

    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    earlier = served()
    assert httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30).status_code == 200
    until(lambda: served() > earlier)  # it is counted once it is answered
    before = served()
    (relay,) = gateway.status()["relays"]["pids"]

    os.kill(relay, signal.SIGKILL)
    until(lambda: gateway.status()["relays"]["connected"] not in ([], [relay]))

    # What the tests before left running may end meanwhile, and count.
    assert served() >= before > 0


def test_a_killed_engine_is_started_again(gateway: Gateway) -> None:
    engine = gateway.status()["health"]["backends"][0]["pid"]

    os.kill(engine, signal.SIGKILL)

    def is_back() -> bool:
        backend: dict[str, Any]
        (backend,) = gateway.status()["health"]["backends"]
        return (backend["state"], backend["pid"] == engine) == ("ready", False)

    until(is_back)
    assert 'modelport_backend_restarts_total{modelport_backend="demo"} 1.0' in httpx.get(f"{gateway.url}/metrics").text


def test_a_killed_supervisor_leaves_no_process(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        gateway.wait_for("demo: ready in")
        below = descendants(gateway.process.pid)
        assert len(below) >= 3  # a relay, a guard and its engine

        gateway.process.kill()
        gateway.process.wait()

        until(lambda: alive(below) == [], GONE_S)

        # And the folder can be used again.
        with running(tmp_path, start="demand") as successor:
            until(lambda: httpx.get(f"{successor.url}/readyz").status_code == 200)
            assert successor.end() == 0


def test_a_fleet_that_fails_ends_the_gateway_and_leaves_nothing(tmp_path: Path) -> None:
    """The fleet's own task gets an exception that nobody expected, while an engine runs."""
    with running(tmp_path, program=("-c", FAILING)) as gateway:
        gateway.wait_for("demo: ready in")
        below = descendants(gateway.process.pid)

        gateway.process.send_signal(signal.SIGUSR1)

        assert gateway.process.wait(PATIENCE_S) == 1
        assert alive(below) == []
        assert "RuntimeError: a bug" in gateway.log.read_text()


def test_a_state_folder_that_is_removed_ends_the_gateway_once_it_needs_a_relay(tmp_path: Path) -> None:
    with running(tmp_path, start="demand") as gateway:
        until(lambda: httpx.get(f"{gateway.url}/readyz").status_code == 200)
        (relay,) = gateway.status()["relays"]["pids"]
        below = descendants(gateway.process.pid)
        shutil.rmtree(gateway.state)
        assert httpx.get(f"{gateway.url}/livez").status_code == 200

        os.kill(relay, signal.SIGKILL)

        assert gateway.process.wait(PATIENCE_S) == 1
        assert alive(below) == []
        assert "relay.sock has been removed while the gateway ran" in gateway.log.read_text()
        assert "Traceback" not in gateway.log.read_text()


# -- orders


def test_a_bad_file_changes_nothing(gateway: Gateway) -> None:
    good = gateway.config.read_text()
    before = gateway.status()
    gateway.config.write_text("models: {other: {backend: nobody}}\n")
    try:
        refused = gateway.ask("/admin/reload", "POST")
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: gateway.log.read_text().count("configuration refused") == 2)
        after = gateway.status()
    finally:
        gateway.config.write_text(good)

    assert refused["error"]["code"] == "config_invalid"
    assert "nobody" in refused["error"]["message"]
    assert after["table_version"] == before["table_version"]
    assert [model["name"] for model in after["health"]["models"]] == ["tiny"]
    assert after["health"]["backends"][0]["pid"] == before["health"]["backends"][0]["pid"]


def test_a_reload_changes_names_and_leaves_an_unchanged_engine_alone(gateway: Gateway) -> None:
    good = gateway.config.read_text()
    engine = gateway.status()["health"]["backends"][0]["pid"]
    gateway.config.write_text(good + "  twin: {backend: demo}\n")
    try:
        reloaded = gateway.ask("/admin/reload", "POST")
        names = [model["id"] for model in httpx.get(f"{gateway.url}/v1/models").json()["data"]]
    finally:
        gateway.config.write_text(good)
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: len(gateway.status()["health"]["models"]) == 1)

    assert reloaded["needs_restart"] == []
    assert {"tiny", "twin"} <= set(names)
    assert gateway.status()["health"]["backends"][0]["pid"] == engine


def test_term_lets_a_stream_finish_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        gateway.wait_for("demo: ready in")
        below = descendants(gateway.process.pid)
        with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=CHAT, timeout=30) as answer:
            pieces = answer.iter_text()
            text = next(pieces)
            gateway.process.send_signal(signal.SIGTERM)
            text += "".join(pieces)
        code = gateway.process.wait(PATIENCE_S)

        assert text.rstrip().endswith("data: [DONE]")
        assert code == 0
        assert alive(below) == []
        left = {path.name for path in gateway.state.iterdir()}
        assert left - {"digests.json"} == {
            "lock",
            "measures.json",
            "gateway.json",
            "keys.json",
            "store.db",
            "usage",
        }  # whether the files were read before it ended
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{gateway.url}/livez")


@pytest.mark.parametrize(
    "others", [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGTERM, signal.SIGINT, signal.SIGTERM)], ids=str
)
def test_signals_within_a_second_are_one(tmp_path: Path, others: tuple[signal.Signals, ...]) -> None:
    """Told to the process group of `make run`, a TERM comes from its sender and from make: every stream was cut."""
    with running(tmp_path) as gateway:
        gateway.wait_for("demo: ready in")
        with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=CHAT, timeout=30) as answer:
            pieces = answer.iter_text()
            text = next(pieces)
            for number in (signal.SIGTERM, *others):
                gateway.process.send_signal(number)
            text += "".join(pieces)
        code = gateway.process.wait(PATIENCE_S)

        assert text.rstrip().endswith("data: [DONE]")
        assert code == 0
        assert "a second signal came" not in gateway.log.read_text()


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        gateway.wait_for("demo: ready in")
        below = descendants(gateway.process.pid)
        body = {**CHAT, "max_tokens": 4000, "ignore_eos": True}
        with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body, timeout=30) as answer:
            pieces = answer.iter_text()  # one that nobody holds closes the answer
            next(pieces)
            gateway.process.send_signal(signal.SIGINT)
            until(lambda: "draining; a second signal ends it at once" in gateway.log.read_text())
            time.sleep(SAME_SIGNAL_S)
            code = gateway.end(signal.SIGINT)

        assert code == 1
        assert alive(below) == []


def test_a_signal_during_the_start_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        until(lambda: (gateway.state / "lock").exists())

        code = gateway.end(signal.SIGTERM)

        assert code == 0
        learned = {
            "digests.json",
            "measures.json",
            "gateway.json",
            "keys.json",
            "store.db",
            "usage",
        }  # where the engine was there before the signal
        assert {path.name for path in gateway.state.iterdir()} - learned == {"lock"}
        assert "Traceback" not in gateway.log.read_text()


def test_while_it_ends_nothing_is_reloaded_and_a_relay_that_dies_is_not_replaced(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        gateway.wait_for("demo: ready in")
        [relay] = gateway.status()["relays"]["pids"]
        with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=CHAT, timeout=30) as answer:
            pieces = answer.iter_text()
            next(pieces)
            gateway.process.send_signal(signal.SIGINT)
            until(lambda: "draining; a second signal ends it at once" in gateway.log.read_text())
            gateway.process.send_signal(signal.SIGHUP)
            until(lambda: "not reloaded" in gateway.log.read_text())
            os.kill(relay, signal.SIGKILL)
            code = gateway.process.wait(PATIENCE_S)
            with pytest.raises(httpx.RemoteProtocolError):
                "".join(pieces)

        assert code == 0
        assert gateway.log.read_text().count("relay started") == 1


def test_closing_the_terminal_ends_everything(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with running(tmp_path, start="demand", terminal=theirs) as gateway:
        until(lambda: httpx.get(f"{gateway.url}/readyz").status_code == 200)
        below = descendants(gateway.process.pid)
        os.close(theirs)
        os.close(ours)

        code = gateway.end(signal.SIGHUP)

        assert code == 0
        assert alive(below) == []


def test_a_terminal_that_make_keeps_the_signal_of_ends_everything_too(tmp_path: Path) -> None:
    """`xterm -e make run`: make leads the session and keeps SIGHUP to itself; the terminal alone tells."""
    ours, theirs = pty.openpty()
    with running(tmp_path, start="demand", terminal=theirs) as gateway:
        until(lambda: httpx.get(f"{gateway.url}/readyz").status_code == 200)
        below = descendants(gateway.process.pid)
        os.close(theirs)
        os.close(ours)

        assert gateway.process.wait(PATIENCE_S) == 0
        assert alive(below) == []


@pytest.mark.parametrize("relays", [2])
def test_several_relays_share_the_port(tmp_path: Path, relays: int) -> None:
    with running(tmp_path, "--relays", str(relays), start="demand") as gateway:
        _ = gateway.url

        until(lambda: len(gateway.status()["relays"]["connected"]) == relays)

        for _ in range(4):
            assert httpx.get(f"{gateway.url}/v1/models").json()["data"]
        assert gateway.end() == 0
