"""Which bytes answers come from: digests of files as they were when their engine was started."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from app.supervisor.fleet.status import Started
from app.supervisor.provenance.provenance import Provenance
from app.supervisor.provenance.servings import servings
from app.table import Serving
from backends.model_files.digests import Changed, stamped_digest
from backends.model_files.sources import FileStamp, Sources, file_stamp, given, in_folder
from tests.rigs.relay import backend

PATIENCE_S = 20.0


def model(folder: Path, weights: bytes = b"weights", template: str = "{{ messages }}") -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text(template)
    (folder / "optimizer.pt").write_bytes(b"of the training")
    return folder


def started(folder: Path, **more: object) -> Started:
    known = {"version": "0.32.0", "models": ("big",), "sources": Sources(in_folder(folder), ("--dtype=bfloat16",))}
    return Started("big", "vllm", 1, **{**known, **more})  # type: ignore[arg-type]


def digests(start: Started) -> dict[FileStamp, str]:
    every = [start.sources, *start.adapters.values()]
    return {file.stamp: stamped_digest(file.stamp) for each in every if each is not None for file in each.files}


def serving(start: Started, name: str = "big") -> Serving:
    return servings(start, digests(start), ())[name]


def test_the_same_bytes_have_the_same_digest_wherever_they_lie(tmp_path: Path) -> None:
    here, there = started(model(tmp_path / "a")), started(model(tmp_path / "b"))

    assert serving(here) == serving(there)
    assert serving(here).weights == hashlib.sha256(b"weights").hexdigest()
    assert len(serving(here).digest or "") == 16


@pytest.mark.parametrize(
    "other",
    ["weights", "template", "version", "settings", "kind", "configuration", "one more file"],
)
def test_whatever_can_change_an_answer_changes_the_digest(tmp_path: Path, other: str) -> None:
    before = started(model(tmp_path / "a"))
    folder = model(
        tmp_path / "b",
        weights=b"others!" if other == "weights" else b"weights",
        template="{{ bos }}" if other == "template" else "{{ messages }}",
    )
    if other == "configuration":
        (folder / "config.json").write_text('{"rope_theta": 1}')
    if other == "one more file":
        (folder / "generation_config.json").write_text("{}")
    after = started(folder, version="0.33.0" if other == "version" else "0.32.0")
    if other == "settings":
        after = replace(after, sources=Sources(in_folder(folder), ("--dtype=float16",)))
    if other == "kind":
        after = replace(after, kind="another")

    assert serving(before).digest != serving(after).digest


def test_what_a_training_left_in_the_folder_does_not(tmp_path: Path) -> None:
    plain = model(tmp_path / "a")
    trained = model(tmp_path / "b")
    (trained / "optimizer.pt").write_bytes(b"another")
    (trained / "trainer_state.json").write_text("[]")
    (trained / "checkpoint-5").mkdir()
    (trained / "checkpoint-5" / "model.safetensors").write_bytes(b"half way")

    assert serving(started(plain)).digest == serving(started(trained)).digest


def test_an_adapter_has_a_digest_of_its_own_and_its_model_keeps_its(tmp_path: Path) -> None:
    lora = tmp_path / "lora"
    lora.mkdir()
    (lora / "adapter_model.safetensors").write_bytes(b"delta")
    folder = model(tmp_path / "a")
    both = started(
        folder,
        models=("big", "law", "far"),
        adapters={"law": Sources(in_folder(lora, "adapter")), "far": None},
    )

    known = servings(both, digests(both), ())

    assert known.keys() == {"big", "law"}  # nothing is known of the third one's files
    assert known["big"] == serving(started(folder))
    assert known["law"].adapter == hashlib.sha256(b"delta").hexdigest()
    assert known["law"].digest != known["big"].digest


def test_of_a_daemon_it_is_made_of_its_own_digest() -> None:
    start = Started("ollama", "ollama", 1, "0.35.0", digests={"qwen:latest": "abc", "qwen:7b": "def"})

    known = servings(start, {}, ())

    assert known.keys() == {"qwen", "qwen:latest", "qwen:7b"}
    assert known["qwen"] == known["qwen:latest"] != known["qwen:7b"]
    assert known["qwen"].weights == "abc"
    assert servings(replace(start, num_ctx={"qwen:latest": 512}), {}, ())["qwen"].digest != known["qwen"].digest


def test_of_somebody_elses_engine_nothing_is_known() -> None:
    assert servings(Started("cloud", "remote", 1, "1", ("gpt",)), {}, ()) == {}


def test_a_file_that_is_no_longer_what_it_was_has_no_digest(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a")
    before = file_stamp(path)
    path.write_bytes(b"bb")

    with pytest.raises(Changed):
        stamped_digest(before)


class Fleet:
    """What provenance asks; `published` counts how often it was told that rows have changed."""

    def __init__(self, *starts: Started) -> None:
        self.starts: Sequence[Started] = starts
        self.published = 0

    def changed(self) -> None:
        self.published += 1


@contextlib.asynccontextmanager
async def watching(fleet: Fleet, path: Path | None = None) -> AsyncIterator[Provenance]:
    provenance = Provenance(path, lambda: fleet.starts, fleet.changed, look_s=0.05)
    running = asyncio.create_task(provenance.run())
    try:
        yield provenance
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def shown(provenance: Provenance, *, is_unverified: bool = False) -> Serving:
    """The row's serving, once it is known."""
    rows = {"big": backend("http://127.0.0.1:1/v1", "big")}
    async with asyncio.timeout(PATIENCE_S):
        while True:
            known = provenance.applied(rows)["big"].serving("big")
            if known is not None and (known.digest is None) == is_unverified:
                return known
            await asyncio.sleep(0.01)


async def test_a_row_has_its_servings_once_the_files_have_been_read(tmp_path: Path) -> None:
    start = started(model(tmp_path / "a"))
    fleet = Fleet(start)

    async with watching(fleet) as provenance:
        known = await shown(provenance)
        other = provenance.applied({"big": backend("http://127.0.0.1:1/v1", "big", generation=2)})
        stopped = provenance.applied({"big": backend(None, "big")})

    assert known == serving(start)
    assert fleet.published == 1
    assert other["big"].servings == stopped["big"].servings == {}


async def test_a_file_that_changes_while_it_is_served_makes_it_unverified_for_good(tmp_path: Path) -> None:
    folder = model(tmp_path / "a")
    kept = folder / "kept"
    fleet = Fleet(started(folder))

    async with watching(fleet) as provenance:
        await shown(provenance)
        (folder / "model.safetensors").rename(kept)
        (folder / "model.safetensors").write_bytes(b"trained on")
        changed = await shown(provenance, is_unverified=True)
        kept.rename(folder / "model.safetensors")
        await asyncio.sleep(0.2)
        back = await shown(provenance, is_unverified=True)

    assert changed == back == Serving(None)


async def test_what_changed_before_it_was_read_is_unverified_too(tmp_path: Path) -> None:
    folder = model(tmp_path / "a")
    start = started(folder)
    (folder / "config.json").write_text('{"a": 1}')

    async with watching(Fleet(start)) as provenance:
        known = await shown(provenance, is_unverified=True)

    assert known.digest is None


async def test_a_file_is_read_once_also_over_restarts_of_the_gateway(tmp_path: Path) -> None:
    start, path = started(model(tmp_path / "a")), tmp_path / "digests.json"
    async with watching(Fleet(start), path) as provenance:
        await shown(provenance)
    kept = json.loads(path.read_bytes())
    for each in kept["digests"]:
        if each["path"].endswith(".safetensors"):
            each["sha256"] = "0" * 64
    path.write_text(json.dumps(kept))

    async with watching(Fleet(start), path) as provenance:
        known = await shown(provenance)

    assert known.weights == "0" * 64


async def test_a_damaged_file_of_digests_is_made_anew(tmp_path: Path) -> None:
    start, path = started(model(tmp_path / "a")), tmp_path / "digests.json"
    path.write_text('{"version": 1, "digests": [')

    async with watching(Fleet(start), path) as provenance:
        known = await shown(provenance)

    assert known == serving(start)
    assert len(json.loads(path.read_bytes())["digests"]) == 3


async def test_a_file_that_cannot_be_read_leaves_it_unknown(tmp_path: Path) -> None:
    folder = model(tmp_path / "a")
    odd = tmp_path / "folder"
    odd.mkdir()
    start = started(folder, sources=Sources((*in_folder(folder), *given("settings", [odd]))))

    async with watching(fleet := Fleet(start)) as provenance:
        fleet.starts = [start]
        await asyncio.sleep(0.3)
        row = provenance.applied({"big": backend("http://127.0.0.1:1/v1", "big")})["big"]

    assert row.servings == {}
