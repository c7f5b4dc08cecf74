"""`modelport register`, `unregister` and `modelfile` as a user calls them: a sentence for each thing that is wrong."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from app.__main__ import cli
from app.cli.modelfile_facts import origin
from app.cli.register_targets import look_around
from app.cli.registering import Asked, how_to_serve, told_in_one_sentence
from app.config.load import loads
from app.config.yaml_document import ConfigError
from app.conversion.digest import WEIGHTS
from app.conversion.model_folder import read_model_folder
from app.conversion.room import check_disk
from app.registration.journal import RegistrationError, folder_of
from app.registration.order import ServingOrder
from backends.model_files.digests import weights_digest
from tests.rigs.cli import Ended, run
from tests.rigs.registration import Copying, Quiet, order_for, register, trained, tuned
from tests.rigs.small_disk import WORDS, small_disk


def safetensors(file: Path) -> None:
    """A file with one tensor of two numbers."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))


def whole(folder: Path) -> Path:
    """A folder that can be read as a model's."""
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    (model / "tokenizer.json").write_text("{}")
    safetensors(model / "model.safetensors")
    return model


def pickled(folder: Path) -> Path:
    model = whole(folder)
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    return model


def adapter(folder: Path) -> Path:
    model = folder / "lora"
    model.mkdir()
    config = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": str(folder / "gone")}
    (model / "adapter_config.json").write_text(json.dumps(config))
    safetensors(model / "adapter_model.safetensors")
    return model


def nothing(folder: Path) -> Path:
    return folder / "nothing"


REFUSED: dict[str, tuple[Callable[[Path], Path], tuple[str, ...], int, str]] = {
    "a folder that is not there": (nothing, (), 1, r"'.*nothing' is not there"),
    "a pickle": (pickled, (), 1, r"pickle \(pytorch_model\.bin\).*runs the code"),
    "a base that is not there": (adapter, (), 1, r"the base of '.*lora', '.*gone', is not here: name it with --base"),
    "a base for a whole model": (whole, ("--base", "x"), 1, "is a whole model, no adapter"),
    "a base that is named and is not there": (
        adapter,
        ("--base", "/nowhere"),
        1,
        "--base names, '/nowhere', is not there",
    ),
    "a base that is a file": (adapter, ("--base", "/etc/passwd"), 1, "--base names, '/etc/passwd', is not a folder"),
    "a training file that is not there": (whole, ("--training", "t.yaml"), 2, r"training file 't\.yaml' is not there"),
    "a type of weights that is none": (
        whole,
        ("--quant", "q4km"),
        2,
        "--outtype: 'q4km' is not a type of weights here",
    ),
    "a place for the configuration that is not there": (
        whole,
        ("--embedded", "--config", "gone/c.yaml"),
        2,
        r"gone/c\.yaml: cannot be written: No such file",
    ),
    "two ways to name the training": (whole, ("--template", "qwen", "--training", "t"), 2, "not both"),
    "a name with a star": (whole, ("--name", "a*"), 2, "is no public name"),
    "no vLLM": (whole, ("--vllm",), 1, "vLLM's program 'vllm' is not here.*--vllm-command"),
    "a setting that is none": (whole, ("--set", "nonsense"), 1, "--set nonsense: write KEY=VALUE"),
    "a daemon that is down": (whole, ("--ollama",), 1, r"no Ollama daemon answers at http://127\.0\.0\.1:9"),
}


@pytest.mark.parametrize(("source", "options", "code", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_registered_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, source: Callable[[Path], Path], options: tuple[str, ...], code: int, words: str
) -> None:
    ended = run(tmp_path, "register", str(source(tmp_path)), "--name", "law", *options)

    assert ended.code == code, ended
    lines = [line for line in ended.err.splitlines() if not line.endswith("…")]
    assert len(lines) == 1, ended.err
    assert re.search(words, lines[0]), lines
    assert not (tmp_path / "modelport.yaml").exists()
    assert not folder_of(tmp_path / "state", "law").exists()


def test_a_configuration_that_is_broken_already_is_told_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "modelport.yaml").write_text("models: {a: {backend: gone}}\n")

    ended = run(tmp_path, "register", str(whole(tmp_path)), "--name", "law", "--embedded")

    assert ended.code == 2
    assert "'gone' is not a backend here" in ended.err
    assert not folder_of(tmp_path / "state", "law").exists()


def test_a_name_that_nobody_registered_is_told_with_those_that_are(tmp_path: Path) -> None:
    ended = run(tmp_path, "unregister", "law")

    assert (ended.code, ended.err) == (1, "'law' is not registered here (registered: none).\n")


def registered(folder: Path) -> None:
    """An embedded serving, made without a tool environment."""
    order = order_for(folder, "", servings=(ServingOrder("law", "embedded", "file"),))
    register(order, folder / "state", trained(), Copying(), Quiet())


def test_unregister_takes_back_what_register_made(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state/lock").touch(mode=0o600)
    order_for(tmp_path, "")
    before = (tmp_path / "modelport.yaml").read_text()
    registered(tmp_path)

    ended = run(tmp_path, "unregister", "law")

    assert ended.code == 0, ended
    assert ended.out == f"law: unregistered. Its source, {tuned(tmp_path)}, is as it was.\n"
    assert (tmp_path / "modelport.yaml").read_text() == before
    assert not folder_of(tmp_path / "state", "law").exists()


@pytest.mark.parametrize("text", ["backends:\nmodels:\n", "backends: {}\nmodels: {}\n", "# mine\n", ""])
def test_a_file_that_serves_nothing_yet_takes_a_name_and_is_left_ready_for_the_next(tmp_path: Path, text: str) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state/lock").touch(mode=0o600)
    config = tmp_path / "modelport.yaml"
    config.write_text(text)
    asked = Asked(folder=tmp_path, name="law", engines=("embedded",), outtype="q8_0", ollama_url="http://127.0.0.1:9")

    assert look_around(asked, config).engines == ("embedded",)
    registered(tmp_path)
    ended = run(tmp_path, "unregister", "law")

    assert ended.code == 0, ended
    assert "names no model any more: `modelport register` or `modelport add` gives it one" in ended.err
    assert look_around(asked, config).engines == ("embedded",)
    registered(tmp_path)
    assert set(loads(config.read_text(), {}, source="x").models) == {"law"}


def test_what_stands_beside_no_models_is_checked_before_anything_is_made(tmp_path: Path) -> None:
    config = tmp_path / "modelport.yaml"
    config.write_text("models: {}\nserver: {port: nonsense}\n")
    asked = Asked(folder=tmp_path, name="law", engines=("embedded",), outtype="q8_0", ollama_url="http://127.0.0.1:9")

    with pytest.raises(ConfigError, match="port"):
        look_around(asked, config)


@pytest.mark.parametrize(
    ("verb", "part", "words"),
    [
        (["register", "m", "--name", "law"], "app.cli.registering.registered", "the same command goes on where it was"),
        (["convert", "m"], "app.conversion.convert.convert", "nothing was left behind"),
    ],
)
def test_ctrl_c_is_answered_with_a_line(
    verb: list[str], part: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(part, interrupted)
    monkeypatch.setenv("MODELPORT_STATE", str(tmp_path / "state"))

    ended = CliRunner().invoke(cli(), verb)

    assert ended.exit_code == 130
    assert re.fullmatch(rf"Interrupted[:;] {words}\.\n", ended.stderr)


def test_what_to_do_follows_from_the_gateway_that_runs() -> None:
    assert how_to_serve("/b.yaml", None).startswith("No gateway is running: `modelport serve --config /b.yaml`")
    assert how_to_serve("/b.yaml", "/a.yaml").startswith("The gateway that runs has /a.yaml and does not serve it: ")


def test_a_full_disk_is_one_sentence_and_the_next_run_finishes(tmp_path: Path) -> None:
    order = order_for(tmp_path, "", servings=(ServingOrder("law", "embedded", "file"),))
    before = order.config.read_text()
    with small_disk(tmp_path / "state") as disk:
        disk.fill()
        with pytest.raises(RegistrationError, match="|".join(WORDS)) as told:
            register(order, disk.folder, trained(), Copying(), Quiet())
        disk.free()

        assert "\n" not in str(told.value)
        assert order.config.read_text() == before
        assert not list(disk.folder.rglob("*.gguf"))
        register(order, disk.folder, trained(), Copying(), Quiet())
        assert [path.name for path in disk.folder.rglob("*.gguf")] != []


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """The header of a GGUF file: a ChatML template with tools, and the tokens that it ends at."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    def pair(key: str, kind: int, value: bytes) -> bytes:
        return text(key) + struct.pack("<I", kind) + value

    pairs = [
        pair("general.architecture", 8, text("llama")),
        pair("llama.context_length", 4, struct.pack("<I", 4096)),
        pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("<|endoftext|>")),
        pair("tokenizer.ggml.eos_token_id", 4, struct.pack("<I", 1)),
        pair("tokenizer.chat_template", 8, text("{{ tools }}<|im_end|>")),
    ]
    file = tmp_path / "law.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs))
    return file


def test_a_modelfile_for_a_gguf_file_names_it_and_ends_where_it_ends(tmp_path: Path, gguf: Path) -> None:
    written = run(tmp_path, "modelfile", str(gguf), "--out", "Modelfile")
    checked = run(tmp_path, "modelfile", str(gguf), "--check", "Modelfile")

    assert written.code == 0, written
    text = (tmp_path / "Modelfile").read_text()
    assert "\nFROM ./law.gguf\n" in text
    assert 'PARAMETER stop "<|endoftext|>"\nPARAMETER stop "<|im_end|>"\n' in text
    assert "PARAMETER num_ctx 4096\n" in text
    assert "TEMPLATE" not in text
    assert (checked.code, checked.out) == (0, f"{tmp_path}/Modelfile: all right\n")


def test_a_modelfile_that_loses_tools_and_runs_on_is_told_with_its_lines(tmp_path: Path, gguf: Path) -> None:
    (tmp_path / "Modelfile").write_text('FROM ./law.gguf\nTEMPLATE "{{ .Prompt }}"\nPARAMETER num_ctx 2048\n')

    ended = run(tmp_path, "modelfile", str(gguf), "--check", "Modelfile", "--json")

    findings = json.loads(ended.out)["findings"]
    assert ended.code == 1
    assert [(each["level"], each["line"]) for each in findings] == [("error", 2), ("error", 0), ("error", 3)]


def test_a_modelfile_that_is_there_is_not_written_over(tmp_path: Path, gguf: Path) -> None:
    (tmp_path / "Modelfile").write_text("mine")

    refused: Ended = run(tmp_path, "modelfile", str(gguf), "--out", "Modelfile")
    replaced = run(tmp_path, "modelfile", str(gguf), "--out", "Modelfile", "--replace")

    assert refused.code == 1
    assert "exists: --check looks at it" in refused.err
    assert replaced.code == 0
    assert (tmp_path / "Modelfile").read_text() != "mine"


def test_a_modelfile_for_a_gguf_file_is_printed_and_a_folder_that_is_not_there_is_told(
    tmp_path: Path, gguf: Path
) -> None:
    printed = run(tmp_path, "modelfile", gguf.name)
    refused = run(tmp_path, "modelfile", gguf.name, "--out", "nodir/M")

    assert printed.code == 0, printed
    assert "\nFROM ./law.gguf\n" in printed.out
    assert (refused.code, refused.err) == (1, f"'{tmp_path}/nodir' is not a folder here: make it.\n")


def test_a_file_that_is_no_gguf_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_text("no such file at all")

    ended = run(tmp_path, "modelfile", "x.gguf")

    assert ended.code == 1
    assert "it is not a GGUF file" in ended.err


def test_a_gguf_file_in_the_folder_is_held_against_the_folders_weights(tmp_path: Path) -> None:
    model = whole(tmp_path)
    digest = weights_digest(read_model_folder(model).weights)
    said = {}
    values: dict[str, str | None] = {"same": digest, "other": "00", "unknown": None}
    for name, value in values.items():
        (model / f"{name}.gguf").write_bytes(gguf_made_from(value))
        said[name] = origin(model, f"./{name}.gguf", model)

    assert said["same"] is None
    assert "was made of other weights than those in" in str(said["other"])
    assert "nothing in that file says that it was made of the weights in" in str(said["unknown"])
    assert origin(model, ".", model) is None


def gguf_made_from(digest: str | None) -> bytes:
    """A GGUF file without tensors that says which weights it was made of."""
    words = [each.encode() for each in (WEIGHTS, digest)] if digest is not None else []
    texts = [struct.pack("<Q", len(each)) + each for each in words]
    pair = texts[0] + struct.pack("<I", 8) + texts[1] if texts else b""
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1 if texts else 0) + pair + bytes(64)


def test_a_disk_without_room_is_told_with_an_option_that_the_command_has(capsys: pytest.CaptureFixture[str]) -> None:
    """`register` has no --out, which the conversion speaks of by itself."""
    with pytest.raises(typer.Exit), told_in_one_sentence():
        check_disk("the conversion", "/s", 2_000_000_000, 1_500_000_000)

    said = capsys.readouterr().err
    assert said.endswith("1.50 GB free: make room there, or choose another state folder with --state.\n")
