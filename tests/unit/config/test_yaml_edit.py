"""app/config/yaml_edit.py with `modelport init`, `add` and `keys new`: what is written into configuration files."""

from __future__ import annotations

import http.server
import json
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config.load import loads
from app.config.yaml_document import ConfigError
from app.config.yaml_edit import add_entry, scalar, write
from app.keys import digest
from tests.rigs.cli import run

COMMENTED = """# The whole.
backends:
  # The first.
  o: {kind: ollama}  # a daemon

# What clients write.
models:
  a:
    backend: o   # odd spaces   stay

# The end.
"""

# text, section → text with `new: {backend: o}`
INSERTIONS = {
    "after the last entry, before the comments of the next section": (
        COMMENTED,
        COMMENTED.replace("stay\n", "stay\n  new: {backend: o}\n"),
    ),
    "into an empty file": ("", "models:\n  new: {backend: o}\n"),
    "at the end, without a last line break": ("a: 1", "a: 1\nmodels:\n  new: {backend: o}\n"),
    "into an empty section": ("models:\n  # none yet\nx: 1\n", "models:\n  new: {backend: o}\n  # none yet\nx: 1\n"),
    "into empty braces": ("models: {}\nx: 1\n", "models: {new: {backend: o}}\nx: 1\n"),
    "into braces": ("models: {a: {backend: o}}  # c\n", "models: {a: {backend: o}, new: {backend: o}}  # c\n"),
    "into braces on several lines": (
        "models: {\n  a: 1,\n}\n",
        "models: {\n  a: 1, new: {backend: o}}\n",
    ),
    "with the section's own indentation": (
        "models:\n      a:\n        backend: o\nx: 1\n",
        "models:\n      a:\n        backend: o\n      new: {backend: o}\nx: 1\n",
    ),
    "after a block of text": (
        "models:\n  a: |\n    one\n    two\n\n# c\nx: 1\n",
        "models:\n  a: |\n    one\n    two\n  new: {backend: o}\n\n# c\nx: 1\n",
    ),
    "after an entry without a value": ("models:\n  a:\nx: 1\n", "models:\n  a:\n  new: {backend: o}\nx: 1\n"),
    "with the file's own line breaks": ("models:\r\n  a: 1\r\n", "models:\r\n  a: 1\r\n  new: {backend: o}\r\n"),
    "behind a variable": ("models:\n  a: '${X}'\n", "models:\n  a: '${X}'\n  new: {backend: o}\n"),
}


@pytest.mark.parametrize(("before", "after"), INSERTIONS.values(), ids=INSERTIONS.keys())
def test_an_entry_is_put_in_and_every_other_byte_stays(before: str, after: str) -> None:
    assert add_entry(before, "models", "new", {"backend": "o"}) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "keys:\n  - {name: k}\n"),
        ("keys:\n  - name: a\n    role: user\n\n# c\n", "keys:\n  - name: a\n    role: user\n  - {name: k}\n\n# c\n"),
        ("keys:\n- name: a\nx: 1\n", "keys:\n- name: a\n- {name: k}\nx: 1\n"),
        ("keys: []\n", "keys: [{name: k}]\n"),
        ("keys: [{name: a}]\n", "keys: [{name: a}, {name: k}]\n"),
    ],
)
def test_an_item_is_put_at_the_end_of_a_list(before: str, after: str) -> None:
    assert add_entry(before, "keys", None, {"name": "k"}) == after


@pytest.mark.parametrize(
    "text",
    [
        "{models: {a: 1}}\n",
        "x: &m {a: 1}\nmodels: *m\n",
        "models: text\n",
        "- a\n",
        "models: [1",
        "models: &m\n  a: 1\nother: *m\n",
    ],
)
def test_what_cannot_be_edited_safely_is_left_alone(text: str) -> None:
    with pytest.raises(ConfigError):
        add_entry(text, "models", "new", {"backend": "o"})


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("qwen2.5-7b", "qwen2.5-7b"),
        ("a:b", '"a:b"'),
        ("true", '"true"'),
        ("Off", '"Off"'),
        ("7b", '"7b"'),
        ("", '""'),
        ('say "é"', '"say \\"é\\""'),
        ("${KEY}", '"${KEY}"'),
        ("~", '"~"'),
        (["a", "b c"], '[a, "b c"]'),
        ({"a": {"b": 1}}, "{a: {b: 1}}"),
    ],
)
def test_values_are_in_quotes_where_yaml_would_read_something_else(value: object, written: str) -> None:
    assert scalar(value) == written


def test_a_file_is_replaced_whole_and_keeps_its_permissions_and_its_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)

    write(link, "new")

    assert link.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.yaml", "real.yaml"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written: No such file or directory"):
        write(tmp_path / "none" / "x.yaml", "new")


def test_init_writes_what_is_found_and_never_twice(tmp_path: Path) -> None:
    (tmp_path / "My Model.gguf").write_bytes(b"GGUF")

    first = run(tmp_path, "init", "--gguf", "My Model.gguf")
    written = (tmp_path / "modelport.yaml").read_text()
    second = run(tmp_path, "init")

    assert first.code == 0
    assert list(loads(written, {}, source="f").models) == ["smollm2-135m-instruct", "my-model"]
    assert "# Who may use it" in written
    assert (second.code, (tmp_path / "modelport.yaml").read_text()) == (1, written)
    assert "exists and is left as it is" in second.err
    assert run(tmp_path, "check").code == 0


def test_init_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    ended = run(tmp_path, "init", "--gguf", "none.gguf")

    assert (ended.code, ended.err) == (1, "'none.gguf' is not a file.\n")


class _Daemon(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"models": [{"name": "security:latest"}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test's output is its own."""


@pytest.fixture
def daemon() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Daemon) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_init_names_the_daemon_that_answers_and_the_vllm_that_is_there(tmp_path: Path, daemon: str) -> None:
    vllm = tmp_path / "bin" / "vllm"
    vllm.parent.mkdir()
    vllm.touch(mode=0o755)

    ended = run(tmp_path, "init", OLLAMA_HOST=daemon, PATH=str(vllm.parent))
    written = (tmp_path / "modelport.yaml").read_text()

    assert ended.code == 0
    assert f'url: "http://{daemon}"' in written
    assert '# my-security: {backend: ollama, model: "security:latest"}' in written
    assert "# vLLM is installed here." in written
    assert set(loads(written, {}, source="f").models) == {"smollm2-135m-instruct", "*", "ollama/*"}


def test_add_puts_models_of_every_kind_into_a_file_and_keeps_its_comments(tmp_path: Path) -> None:
    (tmp_path / "modelport.yaml").write_text(COMMENTED)
    (tmp_path / "m.gguf").write_bytes(b"GGUF....")

    for args in (
        ("law", "--url", "http://127.0.0.1:9/v1", "--api-key-env", "LAW_KEY"),
        ("law-too", "--url", "http://127.0.0.1:9/v1", "--api-key-env", "LAW_KEY", "--model", "vendor/law:2"),
        ("law-open", "--url", "http://127.0.0.1:9/v1"),
        ("sec", "--ollama", "security:latest"),
        ("o", "--gguf", "m.gguf"),
    ):
        assert run(tmp_path, "add", *args).code == 0
    text = (tmp_path / "modelport.yaml").read_text()
    config = loads(text, {"LAW_KEY": "x"}, source="f")

    assert {name: (model.backend, model.model) for name, model in config.models.items()} == {
        "a": ("o", None),
        "law": ("law", None),
        "law-too": ("law", "vendor/law:2"),
        "law-open": ("law-open", None),
        "sec": ("o", "security:latest"),
        "o": ("o-2", None),
    }
    assert 'api_key: "${LAW_KEY}"' in text
    lines = iter(text.splitlines())
    assert all(line in lines for line in COMMENTED.splitlines())


def test_add_makes_the_file_when_there_is_none(tmp_path: Path) -> None:
    ended = run(tmp_path, "add", "sec", "--ollama", "security", "--config", "new.yaml")

    assert ended.code == 0
    assert (tmp_path / "new.yaml").read_text() == (
        "backends:\n  ollama: {kind: ollama}\nmodels:\n  sec: {backend: ollama, model: security}\n"
    )


def test_add_takes_a_folder_or_a_repository_for_vllm(tmp_path: Path) -> None:
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "config.json").write_text("{}")

    first = run(tmp_path, "add", "tuned", "--vllm", "tuned", PATH="/nowhere")
    second = run(tmp_path, "add", "base", "--vllm", "org/base", PATH="/nowhere")

    assert (first.code, second.code) == (0, 0)
    assert "set `command` to the bin/vllm" in first.err
    backends = loads((tmp_path / "modelport.yaml").read_text(), {}, source="f").backends
    assert {name: getattr(each, "model", "") for name, each in backends.items()} == {
        "tuned": str(tmp_path / "tuned"),
        "base": "org/base",
    }


REFUSALS = {
    "a name that is there": (("a", "--ollama", "x"), 2, "modelport.yaml: models.a: exists already"),
    "an alias": (("nick", "--ollama", "x"), 2, "'nick' is already a model's own name"),
    "a url that is none": (("b", "--url", "ftp://x"), 2, "backends.b.url: 'ftp://x' is not an address"),
    "nothing to serve it": (("b",), 2, "Give exactly one of --gguf, --url, --ollama and --vllm."),
    "two to serve it": (("b", "--ollama", "x", "--vllm", "y"), 2, "Give exactly one of"),
    "a key without a url": (
        ("b", "--ollama", "x", "--api-key-env", "K"),
        2,
        "--model and --api-key-env go with --url.",
    ),
    "a key instead of its variable": (
        ("b", "--url", "http://h", "--api-key-env", "sk-1"),
        2,
        "is not the name of an env",
    ),
    "no file": (("b", "--gguf", "none.gguf"), 1, "'none.gguf' is not a file."),
    "no GGUF": (("b", "--gguf", "modelport.yaml"), 1, "is not a GGUF file"),
    "no folder": (("b", "--vllm", "/models/b"), 1, "'/models/b' is not a folder."),
    "no model in it": (("b", "--vllm", "."), 1, "it has no config.json"),
}


@pytest.mark.parametrize(("args", "code", "said"), REFUSALS.values(), ids=REFUSALS.keys())
def test_add_refuses_and_changes_nothing(tmp_path: Path, args: tuple[str, ...], code: int, said: str) -> None:
    text = "backends: {o: {kind: ollama}}\nmodels: {a: {backend: o, aliases: [nick]}}\n"
    (tmp_path / "modelport.yaml").write_text(text)

    ended = run(tmp_path, "add", *args)

    assert (ended.code, (tmp_path / "modelport.yaml").read_text()) == (code, text)
    assert said in ended.err


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "modelport.yaml").write_text("a: [1\n")

    ended = run(tmp_path, "add", "x", "--ollama", "y")

    assert ended.code == 2
    assert ended.err.startswith("modelport.yaml: line 2: this is not YAML: ")


def test_a_key_is_printed_once_and_its_digest_written(tmp_path: Path) -> None:
    (tmp_path / "modelport.yaml").write_text(COMMENTED)

    ended = run(tmp_path, "keys", "new", "office", "--models", "a", "--days", "3", "--config", "modelport.yaml")
    secret = re.search(r"mp-office-[0-9a-f]{64}", ended.out)
    text = (tmp_path / "modelport.yaml").read_text()
    key = loads(text, {}, source="f").keys[0]

    assert ended.code == 0
    assert secret is not None
    assert secret[0] not in text
    assert (key.name, key.sha256, key.models, key.role) == ("office", digest(secret[0]), ("a",), "user")
    assert key.expires is not None
    assert text.startswith(COMMENTED)


def test_without_a_file_the_entry_is_printed_beside_the_key(tmp_path: Path) -> None:
    ended = run(tmp_path, "keys", "new", "boss", "--role", "admin")
    listed = json.loads(run(tmp_path, "keys", "new", "boss", "--json").out)

    assert re.search(r"keys:\n  - \{name: boss, sha256: .*, role: admin\}\n", ended.out)
    assert listed["entry"] == {"name": "boss", "sha256": digest(listed["key"])}
    assert list(tmp_path.iterdir()) == []


def test_a_key_for_a_model_that_is_not_there_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "modelport.yaml").write_text(COMMENTED)

    ended = run(tmp_path, "keys", "new", "office", "--models", "zz", "--config", "modelport.yaml")

    assert (ended.code, ended.out, (tmp_path / "modelport.yaml").read_text()) == (2, "", COMMENTED)
    assert "keys[0].models[0]: 'zz' is not a model here" in ended.err
