"""vLLM with a model of the hub: what must be here before it starts, and how it is called once it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backends import kinds
from backends.errors import EngineFailed, NotReady
from backends.huggingface.cache import Pin, remember, snapshot
from backends.vllm.config import VllmConfig
from backends.vllm.engine import CannotStart, Vllm

COMMIT = "0123456789" * 4
TOKEN = "hf_a-token-that-nobody-may-see"


class Machine:
    """A machine that may have models of the hub, and a `vllm` that nobody calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vllm = folder / "vllm"
        self.vllm.touch(mode=0o755)

    def engine(self, **values: object) -> Vllm:
        env = {"HF_HUB_CACHE": str(self.folder / "cache"), "HF_TOKEN": TOKEN}
        config = {"kind": "vllm", "model": "org/tiny", "command": str(self.vllm), "env": env, **values}
        return Vllm("gpu", VllmConfig.model_validate(config), pins=self.folder / "pins")

    def wanted(self, engine: Vllm) -> list[dict[str, object]]:
        """What the process is to download."""
        assert engine.fetcher is not None
        launch = engine.fetcher.missing()
        return [] if launch is None else [json.loads(word) for word in launch.argv[3:]]

    def have(self, model: str = "org/tiny", revision: str | None = None, **files: str) -> Path:
        """As if it had been downloaded."""
        for want in self.wanted(self.engine(model=model, revision=revision)):
            pin = Pin(model, revision, COMMIT, {name: len(content) for name, content in files.items()})
            remember(pin, Path(str(want["pin"])))
        folder = snapshot(self.folder / "cache", pin)
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_text(content)
        return folder


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_model_of_the_hub_is_wanted_first(machine: Machine) -> None:
    [want] = machine.wanted(machine.engine(revision="v2"))

    assert (want["model"], want["revision"], want["commit"]) == ("org/tiny", "v2", None)


def test_no_argument_holds_the_token_and_no_log_will_show_it(machine: Machine) -> None:
    engine = machine.engine()
    assert engine.fetcher is not None
    bringing = engine.fetcher.missing()
    assert bringing is not None

    for launch in (bringing, engine.launch(1, (), "key")):
        assert launch.env["HF_TOKEN"] == TOKEN
        assert TOKEN in launch.secrets
        assert TOKEN not in " ".join(launch.argv)


def test_what_is_here_is_started_at_its_commit_and_offline(machine: Machine) -> None:
    machine.have(**{"config.json": "{}"})
    engine = machine.engine()

    launch = engine.launch(1, (), "key")

    assert machine.wanted(engine) == []
    assert {f"--revision={COMMIT}", f"--tokenizer-revision={COMMIT}", f"--code-revision={COMMIT}"} <= {*launch.argv}
    assert launch.argv[2] == "org/tiny"
    assert launch.env["HF_HUB_OFFLINE"] == launch.env["TRANSFORMERS_OFFLINE"] == "1"


def test_a_branch_is_handed_on_as_its_commit(machine: Machine) -> None:
    machine.have(revision="v2", **{"config.json": "{}"})

    argv = machine.engine(revision="v2").launch(1, (), "key").argv

    assert f"--revision={COMMIT}" in argv
    assert "--revision=v2" not in argv


@pytest.mark.parametrize(
    ("args", "is_offline", "flags"),
    [
        ("--tokenizer org/other", False, {"--code-revision"}),
        ("--tokenizer=org/other", False, {"--code-revision"}),
        ("--tokenizer-revision v1", True, {"--code-revision"}),
        ('--speculative-config \'{"model": "org/draft"}\'', False, {"--code-revision", "--tokenizer-revision"}),
        ("--swap-space 0", True, {"--code-revision", "--tokenizer-revision"}),
    ],
)
def test_another_repository_in_the_arguments_needs_the_hub(
    machine: Machine, args: str, is_offline: bool, flags: set[str]
) -> None:
    machine.have(**{"config.json": "{}"})

    launch = machine.engine(args=args).launch(1, (), "key")

    assert ("HF_HUB_OFFLINE" in launch.env) is is_offline
    assert {word.partition("=")[0] for word in launch.argv if word.endswith(f"={COMMIT}")} == {"--revision", *flags}


def test_a_folder_wants_nothing_of_the_hub(machine: Machine) -> None:
    (machine.folder / "config.json").write_text("{}")

    engine = machine.engine(model=str(machine.folder))

    assert machine.wanted(engine) == []
    assert "--revision" not in " ".join(engine.launch(1, (), "key").argv)


@pytest.mark.parametrize("model", ["s3://bucket/model", "org/model:Q4_K_M"])
def test_what_is_no_repository_is_vllms_own_affair(machine: Machine, model: str) -> None:
    assert machine.wanted(machine.engine(model=model)) == []


def test_another_hub_is_vllms_own_affair(machine: Machine) -> None:
    assert machine.wanted(machine.engine(env={"VLLM_USE_MODELSCOPE": "True"})) == []


def test_a_folder_that_is_not_there_is_named_before_anything_is_downloaded(machine: Machine) -> None:
    with pytest.raises(CannotStart, match="the model's folder 'nowhere' is not there"):
        machine.wanted(machine.engine(model="/nowhere"))


def test_adapters_may_be_repositories_too(machine: Machine) -> None:
    (machine.folder / "law").mkdir()
    adapters = {"law": str(machine.folder / "law"), "med": "org/med-lora"}

    assert [want["model"] for want in machine.wanted(machine.engine(adapters=adapters))] == ["org/tiny", "org/med-lora"]


def test_the_rank_of_an_adapter_in_the_cache_is_known(machine: Machine) -> None:
    machine.have("org/med-lora", **{"adapter_config.json": '{"r": 40}'})

    argv = machine.engine(adapters={"med": "org/med-lora"}).launch(1, (), "key").argv

    assert "--max-lora-rank=64" in argv


async def test_an_adapter_that_was_not_brought_is_refused_without_the_engine(machine: Machine) -> None:
    engine = machine.engine(enable_lora=True)
    assert engine.adapters is not None

    with pytest.raises(EngineFailed, match="the adapter 'med' has no folder here"):
        await engine.adapters.load(engine.endpoint(1, 9, "key"), "med", "org/med-lora")


def test_without_a_place_to_remember_vllm_fetches_it_itself(machine: Machine) -> None:
    made = kinds.engine("gpu", VllmConfig.model_validate({"kind": "vllm", "model": "org/tiny"}))

    assert made.fetcher is None
    assert issubclass(CannotStart, NotReady)
