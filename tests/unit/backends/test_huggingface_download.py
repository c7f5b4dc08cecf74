"""Downloads from a hub: a real server with the hub's API, real processes, real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from backends.engine import Launch
from backends.huggingface.cache import in_words
from backends.huggingface.fetcher import HubFetcher, environment, explain, is_repository, progress, secrets_in
from tests.fakes.hub import FakeHub

COMMIT = "a" * 40
NEWER = "b" * 40
LARGE_BYTES = 12_000_000
TOKEN = "hf_a-token-that-nobody-may-see"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository as people publish them: every format, and a copy in `original`."""
    folder = tmp_path / "repository"
    (folder / "original").mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["Tiny"]}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("# Tiny")
    (folder / "model.safetensors").write_bytes(os.urandom(LARGE_BYTES))
    (folder / "pytorch_model.bin").write_bytes(os.urandom(200_000))
    (folder / "original/consolidated.00.pth").write_bytes(os.urandom(200_000))
    return folder


class Machine:
    """One machine with its cache, and a state folder per gateway on it."""

    def __init__(self, folder: Path, hub: FakeHub) -> None:
        self.folder = folder
        self.env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "HF_HUB_ETAG_TIMEOUT": "2"}
        self.started: list[subprocess.Popen[str]] = []

    def hub(self, state: str = "state", models: Mapping[str, str | None] | None = None, **env: str) -> HubFetcher:
        wanted = {"org/tiny": None} if models is None else models
        return HubFetcher(self.folder / state, {**self.env, **env}, lambda: wanted)

    def start(self, hub: HubFetcher) -> tuple[subprocess.Popen[str], Launch]:
        launch = hub.missing()
        assert launch is not None
        self.started.append(
            subprocess.Popen(
                launch.argv, env=dict(launch.env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        return self.started[-1], launch

    def bring(self, hub: HubFetcher) -> str:
        """Download; returns why it failed, "" when it did not."""
        process, launch = self.start(hub)
        printed, errors = process.communicate(timeout=60)
        lines = [*printed.splitlines(), *errors.splitlines()]
        assert TOKEN not in "\n".join([*lines, *launch.argv])
        return "" if process.returncode == 0 else explain(process.returncode, lines)

    @property
    def snapshot(self) -> Path:
        return self.folder / f"home/hub/models--org--tiny/snapshots/{COMMIT}"

    def part_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("home/hub/*/blobs/*.modelport.incomplete"))


@pytest.fixture
def machine(tmp_path: Path, hub: FakeHub) -> Iterator[Machine]:
    made = Machine(tmp_path / "machine", hub)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_missing_model_is_brought_with_what_is_needed_of_it(machine: Machine, hub: FakeHub, repository: Path) -> None:
    hub.add("org/tiny", repository)

    assert machine.bring(machine.hub()) == ""

    assert {path.name for path in machine.snapshot.iterdir()} == {
        *("config.json", "tokenizer.json", "README.md", "model.safetensors")
    }
    for path in machine.snapshot.iterdir():
        assert path.read_bytes() == (repository / path.name).read_bytes()
    assert machine.hub().commit("org/tiny", None) == COMMIT
    assert machine.hub().folder("org/tiny", None) == machine.snapshot


def test_what_is_here_needs_no_process_and_no_hub(machine: Machine, hub: FakeHub, repository: Path) -> None:
    hub.add("org/tiny", repository)
    machine.bring(machine.hub())
    hub.asked.clear()

    assert machine.hub().missing() is None
    assert hub.asked == []


def test_a_branch_that_moves_on_changes_nothing_for_who_has_it(
    machine: Machine, hub: FakeHub, repository: Path, tmp_path: Path
) -> None:
    hub.add("org/tiny", repository)
    machine.bring(machine.hub())
    hub.add("org/tiny", repository, NEWER)

    assert machine.hub().missing() is None
    assert machine.hub().commit("org/tiny", None) == COMMIT
    assert machine.bring(machine.hub("another")) == ""
    assert machine.hub("another").commit("org/tiny", None) == NEWER


def test_a_file_that_vanished_is_brought_again_from_the_same_commit(
    machine: Machine, hub: FakeHub, repository: Path
) -> None:
    hub.add("org/tiny", repository)
    machine.bring(machine.hub())
    (machine.snapshot / "model.safetensors").resolve().unlink()
    hub.asked.clear()

    assert machine.bring(machine.hub()) == ""
    assert f"GET /api/models/org/tiny/revision/{COMMIT}" in hub.asked
    assert (machine.snapshot / "model.safetensors").read_bytes() == (repository / "model.safetensors").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_download_that_was_ended_goes_on_where_it_was(
    machine: Machine, hub: FakeHub, repository: Path, number: signal.Signals
) -> None:
    hub.add("org/tiny", repository)
    hub.stops_at = 8_000_000
    first, _ = machine.start(machine.hub())
    assert hub.stopped.wait(60)
    until(lambda: machine.part_bytes() >= 4_000_000)
    first.send_signal(number)
    first.communicate(timeout=60)
    hub.goes_on.set()
    hub.stops_at = None

    assert machine.bring(machine.hub()) == ""

    [asked] = hub.ranges
    assert int(asked.removeprefix("bytes=").rstrip("-")) >= 4_000_000
    assert (machine.snapshot / "model.safetensors").read_bytes() == (repository / "model.safetensors").read_bytes()


def test_a_part_that_is_not_of_this_file_is_thrown_away(machine: Machine, hub: FakeHub, repository: Path) -> None:
    hub.add("org/tiny", repository)
    hub.stops_at = 8_000_000
    first, _ = machine.start(machine.hub())
    assert hub.stopped.wait(60)
    until(lambda: machine.part_bytes() >= 4_000_000)
    first.kill()
    first.communicate(timeout=60)
    hub.goes_on.set()
    hub.stops_at = None
    [part] = machine.folder.glob("home/hub/*/blobs/*.modelport.incomplete")
    part.write_bytes(b"0" * part.stat().st_size)

    assert machine.bring(machine.hub()) == ""
    assert (machine.snapshot / "model.safetensors").read_bytes() == (repository / "model.safetensors").read_bytes()


def test_a_file_that_comes_broken_is_not_taken(machine: Machine, hub: FakeHub, repository: Path) -> None:
    hub.add("org/tiny", repository)
    hub.overrides["model.safetensors"] = {"lfs": {"sha256": "0" * 64, "size": LARGE_BYTES, "pointerSize": 134}}

    assert "arrives broken from the hub" in machine.bring(machine.hub())
    assert not (machine.snapshot / "model.safetensors").exists()


@pytest.mark.parametrize(
    "override",
    [
        {"rfilename": "../../../../victim"},
        {"rfilename": "a/../../../../../victim"},
        {"blobId": "../../../victim"},
        {"lfs": {"sha256": "../../../victim", "size": 6, "pointerSize": 134}},
    ],
)
def test_names_that_lead_out_of_the_cache_are_refused(
    machine: Machine, hub: FakeHub, repository: Path, override: dict[str, Any]
) -> None:
    hub.add("org/tiny", repository)
    hub.overrides["tokenizer.json"] = override
    victim = machine.folder / "home/hub/victim"
    victim.parent.mkdir(parents=True)
    victim.write_text("precious")

    assert "which is not a path inside a model" in machine.bring(machine.hub())

    assert victim.read_text() == "precious"
    assert not machine.snapshot.exists()


def test_two_gateways_bring_a_model_once(machine: Machine, hub: FakeHub, repository: Path) -> None:
    hub.add("org/tiny", repository)
    hub.stops_at = 8_000_000
    first, _ = machine.start(machine.hub("one"))
    assert hub.stopped.wait(60)
    second, _ = machine.start(machine.hub("two"))
    assert second.stdout is not None
    # It watches the other one's bytes.
    seen = progress([second.stdout.readline().rstrip()])
    assert seen is not None
    assert 0 < seen.done_bytes < seen.total_bytes
    hub.goes_on.set()

    assert [one.wait(60) for one in (first, second)] == [0, 0]
    assert sum(asked.startswith("GET") and asked.endswith(".safetensors") for asked in hub.asked) == 1
    assert machine.hub("one").missing() is None
    assert machine.hub("two").missing() is None


def test_progress_is_reported_in_percent_and_bytes(machine: Machine, hub: FakeHub, repository: Path) -> None:
    hub.add("org/tiny", repository)

    process, _ = machine.start(machine.hub())
    printed, _ = process.communicate(timeout=60)

    last = progress(printed.splitlines())
    assert last is not None
    assert (last.text, last.done_bytes) == ("downloading 100 % of 12.0 MB", last.total_bytes)
    assert last.checked_bytes == LARGE_BYTES
    assert progress([]) is None
    half = progress(["downloaded 6923000000 of 16100000000 bytes", "something else"])
    assert half is not None
    assert half.text == "downloading 43 % of 16.1 GB"


def test_a_disk_that_is_too_full_is_reported_with_both_numbers(
    machine: Machine, hub: FakeHub, repository: Path
) -> None:
    hub.add("org/tiny", repository)
    with (repository / "model-2.safetensors").open("wb") as file:
        file.truncate(400_000)
    free = os.statvfs(repository)
    size = free.f_bavail * free.f_frsize + 10**12
    hub.sizes["model-2.safetensors"] = size

    failure = machine.bring(machine.hub())

    assert failure.startswith(f"the disk is too full: 'org/tiny' needs {in_words(size + LARGE_BYTES)} more, and ")
    assert "are free where the hub's cache is: make room" in failure
    assert "HF_HOME" in failure
    assert hub.served == 0


def test_a_repository_that_does_not_exist_is_reported_with_the_remedy(machine: Machine) -> None:
    assert machine.bring(machine.hub()) == (
        "the hub has no model 'org/tiny', or it is private: check `model`; a private one needs a token in "
        "`env: {HF_TOKEN: …}` of the backend"
    )


def test_an_unknown_revision_is_reported_with_the_remedy(machine: Machine, hub: FakeHub, repository: Path) -> None:
    hub.add("org/tiny", repository)

    failure = machine.bring(machine.hub(models={"org/tiny": "v9"}))

    assert failure == "the hub has the model 'org/tiny', but not the revision 'v9': check `revision`"


def test_a_gated_model_asks_for_a_token_and_takes_it(machine: Machine, hub: FakeHub, repository: Path) -> None:
    hub.add("org/tiny", repository)
    hub.token = TOKEN

    failure = machine.bring(machine.hub())

    assert failure == (
        "the model 'org/tiny' is gated: ask for access on its page on the hub, and put a token with it into "
        "`env: {HF_TOKEN: …}` of the backend"
    )
    assert machine.bring(machine.hub(HF_TOKEN=TOKEN)) == ""


def test_a_token_that_is_not_accepted_says_so(machine: Machine, hub: FakeHub, repository: Path) -> None:
    hub.add("org/tiny", repository)
    hub.refuses_tokens = True

    failure = machine.bring(machine.hub(HF_TOKEN=TOKEN))

    assert failure == (
        "the hub refuses the token for 'org/tiny' (status 401): put one that may read it into `env: {HF_TOKEN: …}` of "
        "the backend"
    )


def test_without_a_network_what_is_whole_here_is_taken(machine: Machine, hub: FakeHub, repository: Path) -> None:
    """As another program has left it: huggingface_hub writes which commit the branch was."""
    hub.add("org/tiny", repository)
    machine.bring(machine.hub())
    refs = machine.snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)

    assert machine.bring(machine.hub("new", HF_ENDPOINT="http://127.0.0.1:9")) == ""
    assert machine.hub("new").commit("org/tiny", None) == COMMIT


def test_without_a_network_and_without_the_model_there_is_no_start(machine: Machine) -> None:
    failure = machine.bring(machine.hub(HF_ENDPOINT="http://127.0.0.1:9"))

    assert failure == (
        "the model 'org/tiny' is not complete on this machine, and the hub cannot be reached (ConnectError): check "
        "the network, or copy the model here and name its folder as `model`"
    )


def test_offline_means_offline(machine: Machine, hub: FakeHub, repository: Path) -> None:
    hub.add("org/tiny", repository)

    failure = machine.bring(machine.hub(HF_HUB_OFFLINE="1"))

    assert failure.startswith("the model 'org/tiny' is not complete on this machine")
    assert hub.asked == []


def test_a_hub_that_fails_is_reported_with_its_status(machine: Machine, hub: FakeHub, repository: Path) -> None:
    hub.add("org/tiny", repository)
    hub.fails_with = 500

    assert machine.bring(machine.hub()) == (
        "the hub answers with status 500 when asked for 'org/tiny': try again later"
    )


def test_what_another_program_began_is_whole_for_the_engine_afterwards(
    machine: Machine, hub: FakeHub, repository: Path
) -> None:
    """It leaves a listing of the whole repository, by which a copy without other formats would be incomplete."""
    hub.add("org/tiny", repository)
    env = environment(machine.env, os.environ)
    part = ["-c", "import huggingface_hub as h; h.snapshot_download('org/tiny', allow_patterns=['config.json'])"]
    subprocess.run([sys.executable, *part], env=env, check=True, capture_output=True)

    assert machine.bring(machine.hub()) == ""

    asks = f"import huggingface_hub as h; print(h.snapshot_download('org/tiny', revision='{COMMIT}'))"
    offline = {**env, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", asks], env=offline, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(machine.snapshot)


def test_several_models_are_brought_by_one_process(
    machine: Machine, hub: FakeHub, repository: Path, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 4}))
    (adapter / "adapter_model.safetensors").write_bytes(os.urandom(200_000))
    hub.add("org/tiny", repository)
    hub.add("org/law", adapter, NEWER)
    wanted = {"org/tiny": None, "org/law": None}

    assert machine.bring(machine.hub(models=wanted)) == ""

    folder = machine.hub(models=wanted).folder("org/law", None)
    assert folder is not None
    assert json.loads((folder / "adapter_config.json").read_text()) == {"r": 4}


def test_the_library_asks_the_hub_for_nothing_else(machine: Machine, hub: FakeHub, repository: Path) -> None:
    hub.add("org/tiny", repository)

    machine.bring(machine.hub())

    assert {asked for asked in hub.asked if "org/tiny" not in asked} == set()


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({"HOME": "/h"}, "/h/.cache/huggingface/hub"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HOME": "/h", "HF_HOME": "~/models"}, "/h/models/hub"),
        ({"HOME": "/h", "HF_HOME": "/models", "HF_HUB_CACHE": "$HOME/c"}, "/h/c"),
    ],
)
def test_the_cache_is_where_the_library_would_have_it(env: dict[str, str], wanted: str) -> None:
    assert environment(env, {})["HF_HUB_CACHE"] == wanted


def test_the_process_has_the_network_of_this_machine_and_none_of_our_secrets() -> None:
    ours = {"https_proxy": "http://proxy:3128", "API_KEY": "k", "HF_TOKEN": "ours", "HF_HOME": "/models"}

    env = environment({"HF_TOKEN": TOKEN}, ours)

    assert env["https_proxy"] == "http://proxy:3128"
    assert env["HF_TOKEN"] == TOKEN
    assert env["HF_HOME"] == "/models"
    assert "API_KEY" not in env
    assert secrets_in(env) == (TOKEN,)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("org/model-7B", True),
        ("gpt2", True),
        ("s3://bucket/model", False),
        ("org/model:Q4_K_M", False),
        ("a/b/c", False),
        ("org/..", False),
        ("", False),
    ],
)
def test_what_can_be_a_repository(name: str, wanted: bool) -> None:
    assert is_repository(name) is wanted


def test_a_library_that_is_not_there_is_named() -> None:
    assert explain(1, ["ModuleNotFoundError: No module named 'huggingface_hub'"]) == (
        "the package huggingface_hub is not installed beside the gateway"
    )
    assert explain(-9, ["Traceback"]) == "the download of its model failed: it was ended by signal 9"
