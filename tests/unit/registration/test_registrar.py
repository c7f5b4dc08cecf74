"""app/registration with the configuration file and an Ollama daemon: what is made, finished, refused and taken back."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.config.load import loads
from app.config.yaml_edit import set_entry
from app.registration.config_step import tree_of, without
from app.registration.journal import Journal, RegistrationError, folder_of, names, read
from app.registration.order import ServingOrder, public_names
from app.registration.registrar import WantedFile, take_back
from tests import ROOT
from tests.fakes.ollama import FakeOllama
from tests.rigs.registration import TEMPLATE, Copying, Quiet, order_for, register, trained, tuned


class Daemon:
    """The fake daemon, in a thread of its own: what is tested blocks."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        assert self._ready.wait(30)

    async def _serve(self) -> None:
        async with FakeOllama() as self.fake:
            self._ready.set()
            await self._ended.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return self.fake.url

    def show(self, name: str) -> Any:
        return httpx.post(f"{self.url}/api/show", json={"model": name}).json()

    def models(self) -> set[str]:
        return {each["name"] for each in httpx.get(f"{self.url}/api/tags").json()["models"]}


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    one = Daemon()
    yield one
    one.close()


def run(folder: Path, url: str, making: Copying | None = None, **changes: Any) -> Quiet:
    tell = Quiet()
    model = trained(**changes.pop("model", {}))
    register(order_for(folder, url, **changes), folder / "state", model, making or Copying(), tell)
    return tell


def files(folder: Path) -> set[str]:
    return {path.name for path in folder_of(folder / "state", "law").iterdir()}


def test_one_run_makes_what_each_engine_needs(tmp_path: Path, daemon: Daemon) -> None:
    run(tmp_path, daemon.url)

    text = (tmp_path / "modelport.yaml").read_text()
    config = loads(text, {}, source="x")
    tree = tree_of(text)
    assert text.startswith("# mine\n")
    assert set(config.models) == {"a", "law", "law-ollama", "law-embedded"}
    vllm, embedded = tree["backends"]["law"], tree["backends"]["law-embedded"]
    assert Path(vllm["chat_template"]).read_text() == TEMPLATE
    generation = Path(vllm["args"][0].partition("=")[2]) / "generation_config.json"
    assert json.loads(generation.read_text()) == {"eos_token_id": [7]}
    assert Path(embedded["model"]).read_bytes() == b"GGUFweights" + TEMPLATE.encode()
    assert tree["models"]["law-embedded"]["defaults"]["temperature"] == 0.6
    shown = daemon.show("law-ollama")
    assert shown["system"] == "Be kind."
    assert "num_ctx                        4096" in shown["parameters"]
    assert '"<|end|>"' in shown["parameters"]


def test_the_same_again_does_nothing_again(tmp_path: Path, daemon: Daemon) -> None:
    run(tmp_path, daemon.url)
    before, seen = (tmp_path / "modelport.yaml").read_bytes(), files(tmp_path)
    requests, again = len(daemon.fake.requests), Copying()

    tell = run(tmp_path, daemon.url, again)

    assert again.made == []
    assert (tmp_path / "modelport.yaml").read_bytes() == before
    assert files(tmp_path) == seen
    assert [each.method for each in daemon.fake.requests[requests:] if each.path != "/api/tags"] == []
    assert sum("done already" in line for line in tell.lines) >= 4


def test_another_quantization_replaces_the_file_and_the_model_and_leaves_nothing_of_the_old(
    tmp_path: Path, daemon: Daemon
) -> None:
    run(tmp_path, daemon.url)
    (old,) = [name for name in files(tmp_path) if name.endswith(".gguf")]

    run(tmp_path, daemon.url, outtype="q4_k_m")

    (new,) = [name for name in files(tmp_path) if name.endswith(".gguf")]
    assert new != old
    assert tree_of((tmp_path / "modelport.yaml").read_text())["backends"]["law-embedded"]["model"].endswith(new)


def test_an_engine_that_is_not_asked_for_any_more_is_taken_back(tmp_path: Path, daemon: Daemon) -> None:
    run(tmp_path, daemon.url)

    run(tmp_path, daemon.url, servings=(ServingOrder("law", "embedded", "file"),))

    tree = tree_of((tmp_path / "modelport.yaml").read_text())
    assert daemon.models() == {"smollm2:135m"}
    assert set(tree["models"]) == {"a", "law"}
    assert set(tree["backends"]) == {"other", "law"}


def test_a_name_that_goes_to_another_engine_leaves_no_backend_of_the_old_one(tmp_path: Path, daemon: Daemon) -> None:
    run(tmp_path, "", servings=(ServingOrder("law", "embedded", "file"),))

    run(
        tmp_path,
        daemon.url,
        servings=(
            ServingOrder("law", "ollama", "daemon", daemon.url),
            ServingOrder("law-embedded", "embedded", "file"),
        ),
    )

    tree = tree_of((tmp_path / "modelport.yaml").read_text())
    assert set(tree["backends"]) == {"other", "ollama", "law-embedded"}
    assert tree["models"]["law"]["backend"] == "ollama"


def test_what_the_user_adds_to_an_entry_stays(tmp_path: Path, daemon: Daemon) -> None:
    run(tmp_path, daemon.url)
    path = tmp_path / "modelport.yaml"
    path.write_text(path.read_text().replace("law: {backend: law}", "law: {backend: law, aliases: [jurist]}"))

    run(tmp_path, daemon.url)

    assert tree_of(path.read_text())["models"]["law"]["aliases"] == ["jurist"]


def undo(folder: Path) -> list[str]:
    """What `modelport unregister` does but for the reload."""
    place = folder_of(folder / "state", "law")
    content = read(place)
    assert content is not None
    journal = Journal(place, content)
    text, left = without((folder / "modelport.yaml").read_text(), journal.made())
    (folder / "modelport.yaml").write_text(text)
    left += [line for made in journal.made() if (line := take_back(made)) is not None]
    journal.erase()
    return left


def test_taking_back_removes_what_was_made_and_nothing_else(tmp_path: Path, daemon: Daemon) -> None:
    order_for(tmp_path, daemon.url)
    before = (tmp_path / "modelport.yaml").read_text()
    run(tmp_path, daemon.url)

    assert undo(tmp_path) == []

    assert (tmp_path / "modelport.yaml").read_text() == before
    assert daemon.models() == {"smollm2:135m"}
    assert names(tmp_path / "state") == []
    assert (tmp_path / "tuned/model.safetensors").exists()


def test_a_backend_that_others_use_by_now_stays_and_is_named(tmp_path: Path, daemon: Daemon) -> None:
    run(tmp_path, daemon.url)
    path = tmp_path / "modelport.yaml"
    path.write_text(path.read_text() + "  mine: {backend: ollama, model: smollm2}\n")

    assert undo(tmp_path) == ["backends.ollama stays: models.mine uses it"]
    assert set(loads(path.read_text(), {}, source="x").models) == {"a", "mine"}


def test_a_daemons_model_that_somebody_made_anew_stays(tmp_path: Path, daemon: Daemon) -> None:
    run(tmp_path, daemon.url)
    httpx.post(f"{daemon.url}/api/create", json={"model": "law-ollama", "from": "smollm2:135m", "stream": False})

    assert "has other weights by now and stays" in undo(tmp_path)[0]
    assert "law-ollama:latest" in daemon.models()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("  law: {backend: other}\n", r"'law' is taken: models\.law .*choose another --name, or --replace"),
        ("  b: {backend: other, aliases: [law]}\n", r"models\.b\.aliases"),
    ],
)
def test_a_name_in_the_file_is_refused_before_anything_is_made(
    tmp_path: Path, daemon: Daemon, entry: str, words: str
) -> None:
    order_for(tmp_path, daemon.url)
    path = tmp_path / "modelport.yaml"
    path.write_text(path.read_text() + entry)
    making = Copying()

    with pytest.raises(RegistrationError, match=words):
        run(tmp_path, daemon.url, making)

    assert making.made == []
    assert not folder_of(tmp_path / "state", "law").exists()


def test_a_name_in_the_daemon_is_refused_and_replaced_only_when_asked(tmp_path: Path, daemon: Daemon) -> None:
    httpx.post(f"{daemon.url}/api/create", json={"model": "LAW-ollama", "from": "smollm2:135m", "stream": False})

    with pytest.raises(RegistrationError, match="has a model 'law-ollama' already"):
        run(tmp_path, daemon.url)
    run(tmp_path, daemon.url, replace=True)

    assert daemon.show("law-ollama")["system"] == "Be kind."


def test_a_name_of_the_file_is_taken_over_when_asked(tmp_path: Path, daemon: Daemon) -> None:
    order_for(tmp_path, daemon.url)
    path = tmp_path / "modelport.yaml"
    path.write_text(path.read_text() + "  law: {backend: other}\n")

    run(tmp_path, daemon.url, replace=True)

    assert tree_of(path.read_text())["models"]["law"] == {"backend": "law"}


EMBEDDED = (ServingOrder("law", "embedded", "file"),)


def another(folder: Path) -> Path:
    model = folder / "another"
    shutil.copytree(tuned(folder), model)
    (model / "model.safetensors").write_bytes(b"other weights")
    return model


def test_another_folder_takes_a_registered_name_only_when_asked_and_is_the_source_then(tmp_path: Path) -> None:
    run(tmp_path, "", servings=EMBEDDED)
    making, source = Copying(), another(tmp_path)

    with pytest.raises(RegistrationError, match=r"'law' is taken: it is registered from .*tuned, not from .*another; "):
        run(tmp_path, "", making, servings=EMBEDDED, source=source)
    assert making.made == []
    run(tmp_path, "", servings=EMBEDDED, source=source, replace=True)

    content = read(folder_of(tmp_path / "state", "law"))
    assert content is not None
    assert content.source == str(source)
    file = tree_of((tmp_path / "modelport.yaml").read_text())["backends"]["law"]["model"]
    assert b"other weights" in Path(file).read_bytes()


def test_the_same_folder_with_new_weights_goes_on_under_its_name(tmp_path: Path) -> None:
    run(tmp_path, "", servings=EMBEDDED)
    (tmp_path / "tuned/model.safetensors").write_bytes(b"trained again")

    run(tmp_path, "", servings=EMBEDDED)

    file = tree_of((tmp_path / "modelport.yaml").read_text())["backends"]["law"]["model"]
    assert b"trained again" in Path(file).read_bytes()


@pytest.mark.parametrize("replace", [False, True])
def test_a_second_configuration_for_a_name_is_refused_until_the_first_has_it_no_more(
    tmp_path: Path, replace: bool
) -> None:
    run(tmp_path, "", servings=EMBEDDED)
    first, second = tmp_path / "modelport.yaml", tmp_path / "hand.yaml"
    second.write_text("backends:\nmodels:\n")

    with pytest.raises(RegistrationError, match=r"is registered in .*modelport\.yaml already, not in .*hand\.yaml: "):
        run(tmp_path, "", servings=EMBEDDED, config=second, replace=replace)
    assert second.read_text() == "backends:\nmodels:\n"
    first.rename(tmp_path / "moved.yaml")
    run(tmp_path, "", servings=EMBEDDED, config=second)

    content = read(folder_of(tmp_path / "state", "law"))
    assert content is not None
    assert content.config == str(second)
    assert set(tree_of(second.read_text())["models"]) == {"law"}


def by_hand(folder: Path) -> str:
    """The user has put another model in the place of what was registered."""
    run(folder, "", servings=EMBEDDED)
    path = folder / "modelport.yaml"
    text = set_entry(path.read_text(), ("backends", "law"), {"kind": "llama_cpp", "model": "/mine.gguf"})
    text = set_entry(text, ("models", "law"), {"backend": "other"})
    path.write_text(text)
    return text


def test_an_entry_that_somebody_wrote_over_the_registrations_own_is_taken(tmp_path: Path) -> None:
    text = by_hand(tmp_path)

    with pytest.raises(RegistrationError, match=r"'law' is taken: models\.law in"):
        run(tmp_path, "", servings=EMBEDDED)
    assert (tmp_path / "modelport.yaml").read_text() == text
    run(tmp_path, "", servings=EMBEDDED, replace=True)

    tree = tree_of((tmp_path / "modelport.yaml").read_text())
    assert tree["backends"]["law"]["model"] == "/mine.gguf"
    assert tree["models"]["law"]["backend"] == "law-2"


def test_an_entry_that_somebody_wrote_over_the_registrations_own_is_not_taken_back(tmp_path: Path) -> None:
    text = by_hand(tmp_path)

    left = undo(tmp_path)

    assert left == [
        "models.law stays: it is not what was registered any more",
        "backends.law stays: it is not what was registered any more",
    ]
    assert (tmp_path / "modelport.yaml").read_text() == text


def test_an_error_in_the_daemons_stream_is_told_and_goes_on_from_there(tmp_path: Path, daemon: Daemon) -> None:
    class Broken(Copying):
        def gguf(self, wanted: WantedFile) -> Any:
            facts = super().gguf(wanted)
            wanted.out.write_bytes(b"nonsense")
            return facts

    with pytest.raises(RegistrationError, match="cannot create 'law-ollama': supplied file was not in GGUF format"):
        run(tmp_path, daemon.url, Broken())

    assert set(tree_of((tmp_path / "modelport.yaml").read_text())["models"]) == {"a"}


def test_a_daemon_that_is_down_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RegistrationError, match=r"no Ollama daemon answers at http://127\.0\.0\.1:9: start it with"):
        run(tmp_path, "http://127.0.0.1:9")

    assert not folder_of(tmp_path / "state", "law").exists()


def test_an_adapter_joins_the_engine_that_has_its_base_and_template(tmp_path: Path) -> None:
    config = tmp_path / "modelport.yaml"
    config.write_text("backends:\n  gpu: {kind: vllm, model: /base}\nmodels:\n  base: {backend: gpu}\n")
    servings = (ServingOrder("law", "vllm", "adapter"),)
    same = {"chat_template": None, "generation": None}

    run(tmp_path, "", servings=servings, is_adapter=True, base="/base", model=same)

    tree = tree_of(config.read_text())
    assert tree["backends"]["gpu"]["adapters"] == {"law": str(tmp_path / "tuned")}
    assert set(tree["models"]) == {"base"}
    assert undo(tmp_path) == []
    assert tree_of(config.read_text())["backends"] == {"gpu": {"kind": "vllm", "model": "/base"}}


def test_an_adapter_with_another_template_gets_an_engine_of_its_own(tmp_path: Path) -> None:
    config = tmp_path / "modelport.yaml"
    config.write_text("backends:\n  gpu: {kind: vllm, model: /base}\nmodels:\n  base: {backend: gpu}\n")

    run(tmp_path, "", servings=(ServingOrder("law", "vllm", "adapter"),), is_adapter=True, base="/base")

    backend = tree_of(config.read_text())["backends"]["law"]
    assert backend["model"] == "/base"
    assert backend["adapters"] == {"law": str(tmp_path / "tuned")}
    assert Path(backend["chat_template"]).read_text() == TEMPLATE
    run(tmp_path, "", servings=(ServingOrder("law", "vllm", "adapter"),), is_adapter=True, base="/base")
    assert undo(tmp_path) == []
    assert set(tree_of(config.read_text())["backends"]) == {"gpu"}


def test_an_engine_that_another_adapter_joined_stays_without_the_first(tmp_path: Path) -> None:
    servings = (ServingOrder("law", "vllm", "adapter"),)
    run(tmp_path, "", servings=servings, is_adapter=True, base="/base")
    config = tmp_path / "modelport.yaml"
    config.write_text(set_entry(config.read_text(), ("backends", "law", "adapters", "tax"), "/tax"))

    assert undo(tmp_path) == ["backends.law stays: backends.law.adapters.tax uses it"]
    assert tree_of(config.read_text())["backends"]["law"]["adapters"] == {"tax": "/tax"}


def test_a_merged_adapter_is_a_model_of_its_own(tmp_path: Path) -> None:
    making = Copying()

    run(tmp_path, "", making, servings=(ServingOrder("law", "vllm", "folder"),), is_adapter=True, base="/base")

    backend = tree_of((tmp_path / "modelport.yaml").read_text())["backends"]["law"]
    assert making.made == ["merged"]
    assert (Path(backend["model"]) / "model.safetensors").read_bytes() == b"merged"
    assert "adapters" not in backend


def test_the_first_engine_has_the_name_itself() -> None:
    assert public_names("law", ["vllm", "ollama", "embedded"]) == {
        "vllm": "law",
        "ollama": "law-ollama",
        "embedded": "law-embedded",
    }


def once(folder: Path, url: str, kill_at: int) -> subprocess.CompletedProcess[str]:
    """A registration in a process of its own, killed at that place (0: nowhere)."""
    argv = [sys.executable, "-m", "tests.rigs.registration", str(folder), url, str(kill_at)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_a_run_that_is_killed_anywhere_is_finished_by_the_next(tmp_path: Path, daemon: Daemon) -> None:
    """kill -9 before and after each write and each act: no half file, no orphan entry, no orphan model."""
    whole = tmp_path / "whole"
    whole.mkdir()
    ended = once(whole, daemon.url, 0)
    assert ended.returncode == 0, ended.stderr
    places = int(ended.stdout.split()[-1])
    wanted, models = (whole / "modelport.yaml").read_text(), daemon.models()
    seen = {name for name in files(whole) if name != "log.txt"}
    undo(whole)

    for place in range(1, places + 1, 6):
        folder = tmp_path / f"killed{place}"
        folder.mkdir()
        assert once(folder, daemon.url, place).returncode == -9, place
        loads((folder / "modelport.yaml").read_text(), {}, source="x")

        run(folder, daemon.url)

        assert (folder / "modelport.yaml").read_text() == wanted.replace(str(whole), str(folder)), place
        assert {name for name in files(folder) if name != "log.txt"} == seen, place
        assert daemon.models() == models, place
        assert undo(folder) == [], place
        assert daemon.models() == {"smollm2:135m"}, place


@pytest.mark.parametrize("place", [11, 23])
def test_what_a_killed_run_has_made_can_be_taken_back_at_once(tmp_path: Path, daemon: Daemon, place: int) -> None:
    order_for(tmp_path, daemon.url)
    before = (tmp_path / "modelport.yaml").read_text()

    assert once(tmp_path, daemon.url, place).returncode == -9
    assert undo(tmp_path) == []

    assert (tmp_path / "modelport.yaml").read_text() == before
    assert daemon.models() == {"smollm2:135m"}
    assert not folder_of(tmp_path / "state", "law").exists()
