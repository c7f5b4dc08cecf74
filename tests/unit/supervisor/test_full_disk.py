"""The state folder's disk is full: real processes on a real small file system.

Both the relay, at its first request of a new kind, and the supervisor, at a relay's death, ended by SIGBUS then, and
nothing was said: they had mapped files whose space the disk did not have.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from pathlib import Path

import httpx
import pytest

from app.supervisor.json_store import JsonStore
from app.supervisor.state_disk import StateDisk, why_not_writable
from backends.huggingface.cache import Pin, remember, remembered
from tests.rigs.cli import run
from tests.rigs.serving import Gateway, running, until
from tests.rigs.small_disk import WORDS, small_disk

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Count from one to fifty."}], "max_tokens": 3}


def _ask(gateway: Gateway, **changes: object) -> httpx.Response:
    return httpx.post(f"{gateway.url}/v1/chat/completions", json={**CHAT, **changes}, timeout=60)


def _served(page: str) -> float:
    counts = re.findall(r"^modelport_attempts_total\{.*outcome=\"ok\".*\} (\S+)$", page, re.MULTILINE)
    return sum(float(number) for number in counts)


def _is_said(gateway: Gateway) -> bool:
    return 'state_folder": null' not in json.dumps(gateway.ask("/health"))


def _stream(url: str, ends: list[str]) -> None:
    body = {**CHAT, "stream": True, "max_tokens": 200, "ignore_eos": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as answer:
        ends.extend(answer.iter_lines())


def test_a_full_disk_is_said_and_stops_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state") as disk, running(tmp_path) as gateway:
        gateway.wait_for("demo: ready in")
        url, status = gateway.url, gateway.status()
        lines: list[str] = []
        streaming = threading.Thread(target=_stream, args=(url, lines))
        streaming.start()
        until(lambda: "modelport_in_flight" in gateway.metrics())
        (relay,) = status["relays"]["pids"]

        disk.fill()
        answers = [
            httpx.get(f"{url}/livez").status_code,
            _ask(gateway).status_code,
            _ask(gateway, max_tokens="many").status_code,
            httpx.post(f"{url}/v1/completions", json={"model": "tiny", "prompt": "a", "max_tokens": 1}).status_code,
            httpx.post(f"{url}/v1/embeddings", json={"model": "tiny", "input": "a"}).status_code // 100,
        ]
        streaming.join()
        until(lambda: _is_said(gateway))
        health, page = httpx.get(f"{url}/health").json(), gateway.metrics()

        assert answers[:2] == [200, 200]
        assert answers[3] == 200
        assert lines[-2] == "data: [DONE]"
        assert gateway.status()["relays"]["pids"] == [relay]
        assert health["status"] == "degraded"
        assert health["state_folder"] in WORDS
        assert "\nmodelport_state_folder_full 1.0" in page
        assert _served(page) >= 3
        assert "the state folder cannot be written; requests go on" in gateway.log.read_text()

        before = _served(page)
        os.kill(relay, signal.SIGKILL)
        until(lambda: gateway.status()["relays"]["connected"] not in ([], [relay]))
        assert _served(gateway.metrics()) == before
        assert _ask(gateway).status_code == 200
        until(lambda: _served(gateway.metrics()) == before + 1)

        disk.free()
        until(lambda: not _is_said(gateway))
        assert "the state folder can be written again" in gateway.log.read_text()
        assert gateway.ask("/health")["status"] == "ok"
        assert gateway.process.poll() is None
        assert gateway.end() == 0


def test_a_gateway_starts_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state") as disk:
        (disk.folder / "lock").touch()  # what an earlier one leaves behind
        disk.fill()
        with running(tmp_path) as gateway:
            gateway.wait_for("demo: ready in")

            assert _ask(gateway).status_code == 200
            assert gateway.end() == 0


def test_what_could_not_be_written_is_written_once_there_is_room(tmp_path: Path) -> None:
    file = JsonStore(tmp_path / "later" / "measures.json", str)
    disk = StateDisk(tmp_path, [file])

    file.write("first")
    file.write("last")
    disk.report(disk.check())
    before = disk.trouble
    (tmp_path / "later").mkdir()
    disk.report(disk.check())

    assert before == "No such file or directory"
    assert disk.trouble is None
    assert (tmp_path / "later" / "measures.json").read_bytes() == b'"last"'
    assert file.read() == "last"


def test_an_old_file_outlives_a_write_for_which_there_is_no_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state") as disk:
        file = JsonStore(disk.folder / "measures.json", str)
        file.write("old")
        disk.fill()
        try:
            file.write("new" * 100_000)
            trouble = why_not_writable(disk.folder)
        finally:
            disk.free()

        assert trouble in WORDS
        assert sorted(one.name for one in disk.folder.iterdir()) == ["measures.json"]
        assert (disk.folder / "measures.json").read_bytes() == b'"old"'
        assert file.catch_up() is None
        assert file.read() == "new" * 100_000


@pytest.mark.parametrize(
    "change", [{"f_bavail": 0}, {"f_favail": 0, "f_files": 10}], ids=["no block left", "no file left"]
)
def test_where_little_is_left_it_is_tried_whether_something_can_be_written(
    tmp_path: Path, change: dict[str, int]
) -> None:
    disk = os.statvfs(tmp_path)
    told = os.statvfs_result([change.get(name, getattr(disk, name)) for name in os.statvfs_result.__match_args__])

    assert why_not_writable(tmp_path, lambda _: told) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_has_gone_cannot_be_written(tmp_path: Path) -> None:
    assert why_not_writable(tmp_path / "gone") == "No such file or directory"


def test_a_configuration_for_which_there_is_no_room_leaves_no_piece_of_it(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        gguf = tmp_path / "m.gguf"
        gguf.write_bytes(b"GGUF")
        config = disk.folder / "modelport.yaml"
        disk.fill()

        full = run(tmp_path, "init", "--gguf", str(gguf), "--config", str(config))
        disk.free()
        free = run(tmp_path, "init", "--gguf", str(gguf), "--config", str(config))

    assert full.code != 0
    assert "cannot be written: " in full.err
    assert (free.code, free.err) == (0, "")


def test_what_is_noted_of_a_model_is_noted_whole_or_not_at_all(tmp_path: Path) -> None:
    pin = Pin("org/m", None, "0" * 40, {f"model-{n}.safetensors": 1 for n in range(5_000)})
    with small_disk(tmp_path / "state") as disk:
        path = disk.folder / "hub" / "pin.json"
        remember(Pin("org/m", None, "1" * 40, {"a": 1}), path)
        disk.fill()
        path.parent.chmod(disk.folder.stat().st_mode & 0o777)
        try:
            with pytest.raises(OSError, match="|".join(WORDS)):
                remember(pin, path)
        finally:
            path.parent.chmod(0o700)
            disk.free()

        assert [one.name for one in path.parent.iterdir()] == ["pin.json"]
        assert remembered(path, "org/m", None) == Pin("org/m", None, "1" * 40, {"a": 1})
