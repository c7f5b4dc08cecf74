"""What the shell completes, and the examples at the end of every verb's help."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import click
import pytest
import typer
from typer.testing import CliRunner

from app.__main__ import cli
from app.cli.completion import in_answer, in_file
from app.cli.examples import EXAMPLES
from tests import ROOT
from tests.rigs.cli import run
from tests.unit.house.test_docs import verbs

COMMANDS = dict(verbs(cast("click.Command", typer.main.get_command(cli()))))
FILE = """
# models: {no: yes}
server: {port: 8000}
backends:
  # the first
  demo:
    kind: llama_cpp
    models: no
  "quoted: one": {kind: ollama}

  'single': {kind: ollama}   # with a word
models:
    small: {backend: demo, aliases: [a, b]}
    ollama/*: {backend: single}
    qwen2.5:7b: {backend: single}
pairs: {a: {base: x, tuned: y}}
keys:
  - {name: office}
"""


def test_names_are_read_from_a_file_without_parsing_it() -> None:
    assert in_file(FILE, "backends") == ["demo", "quoted: one", "single"]
    assert in_file(FILE, "models")[:2] == ["small", "ollama/*"]
    assert in_file(FILE, "pairs") == in_file(FILE, "keys") == in_file(FILE, "nothing") == in_file("", "models") == []


def test_an_answer_of_another_shape_has_no_names() -> None:
    answer = {"health": {"models": [{"name": "small", "state": "ready"}], "backends": [{"name": 1}]}}

    assert in_answer(answer, "models") == [("small", "ready")]
    assert in_answer(answer, "backends") == in_answer(None, "models") == in_answer([], "models") == []


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """`modelport` as pip installs it."""
    path = tmp_path / "bin" / "modelport"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\nimport sys\nfrom app.__main__ import main\nsys.exit(main())\n")
    path.chmod(0o755)
    return path


def completed(program: Path, *words: str, **env: str) -> list[str]:
    """What bash offers for the last of these words."""
    listed = " ".join(shlex.quote(word) for word in ("modelport", *words))
    script = (
        'eval "$(_MODELPORT_COMPLETE=source_bash modelport)"\n'
        f"COMP_WORDS=({listed}); COMP_CWORD={len(words)}; _modelport_completion modelport\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    path = f"{program.parent}{os.pathsep}{os.defpath}"
    known = {"PATH": path, "HOME": str(program.parent), "PYTHONPATH": str(ROOT), **env}
    ended = subprocess.run(
        ["bash", "-c", script], cwd=program.parent, env=known, capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stderr == ""
    return ended.stdout.split()


def test_bash_completes_verbs_options_and_the_names_in_the_file(program: Path) -> None:
    (program.parent / "modelport.yaml").write_text(FILE)

    assert completed(program, "sto") == ["stop", "store"]
    assert completed(program, "adapters", "lo") == ["load"]
    assert completed(program, "serve", "--rel") == ["--relays"]
    assert completed(program, "stop", "si") == ["single"]
    assert completed(program, "compare", "s") == ["small"]


def test_a_name_that_a_shell_would_run_or_split_is_not_offered(program: Path) -> None:
    names = ["plain", "日本:7b", "a$(touch x)", "b`id`", "c d;e", "f|g", "h*", "i'j"]
    text = "models:\n" + "".join(f"  {json.dumps(name, ensure_ascii=False)}: {{backend: b}}\n" for name in names)
    (program.parent / "modelport.yaml").write_text(text)

    assert completed(program, "compare", "") == ["plain", "日本:7b"]


def test_a_configuration_that_is_a_pipe_is_not_waited_for(program: Path) -> None:
    os.mkfifo(program.parent / "pipe")

    assert completed(program, "compare", "", MODELPORT_CONFIG=str(program.parent / "pipe")) == []


def test_a_long_file_that_is_no_configuration_is_read_as_fast_as_any_other() -> None:
    assert in_file("models:\n" + "  a\n" * 500_000, "models") == []


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose gateway serves `running` on the backend `engine`."""
    names = {"models": [{"name": "running", "state": "ready"}], "backends": [{"name": "engine", "state": "ready"}]}
    body = json.dumps({"health": names}).encode()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + body)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield tmp_path
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_names_of_the_running_gateway_come_before_those_in_the_file(program: Path, gateway: Path) -> None:
    (program.parent / "modelport.yaml").write_text(FILE)

    assert completed(program, "parity", "", MODELPORT_STATE=str(gateway)) == ["running"]
    assert completed(program, "logs", "--state", str(gateway), "e") == ["engine"]


def test_completing_loads_nothing_heavy(program: Path) -> None:
    # Typer itself loads pydantic, for the values of options.
    heavy = "{'pydantic_settings', 'fastapi', 'httpx', 'ruamel.yaml', 'uvicorn', 'msgspec', 'rich', 'asyncio'}"
    code = (
        "import sys, app.__main__ as m\nsys.argv[0] = 'modelport'\n"
        f"try: m.main()\nexcept SystemExit: print(sorted({heavy} & set(sys.modules)))"
    )
    env = {
        "_MODELPORT_COMPLETE": "complete_bash",
        "COMP_WORDS": "modelport logs ",
        "COMP_CWORD": "2",
        "PYTHONPATH": str(ROOT),
        "HOME": str(program.parent),
    }

    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)

    assert ended.stdout.split("\n")[-2] == "[]"


def test_a_clone_teaches_the_shell_about_modelport_and_leaves_python_alone(tmp_path: Path) -> None:
    shown = run(tmp_path, "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").out

    assert [line for line in shown.splitlines() if line.startswith("complete ")] == [
        "complete -o default -F _modelport_completion modelport"
    ]


# -- examples


@pytest.mark.parametrize("words", sorted(COMMANDS), ids=" ".join)
def test_each_verb_has_an_example_and_shows_it(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli(), [*words, "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})

    examples = EXAMPLES[" ".join(words)]
    assert examples
    assert all(example in shown.output for example in examples)


@pytest.mark.parametrize("verb", EXAMPLES)
def test_each_example_is_a_command_that_is_understood(verb: str) -> None:
    command = COMMANDS[tuple(verb.split())]
    for example in EXAMPLES[verb]:
        words = shlex.split(example.partition(" > ")[0])

        context = command.make_context(verb, words[1 + len(verb.split()) :])

        assert words[: 1 + len(verb.split())] == ["modelport", *verb.split()]
        assert set(context.params) >= {each.name for each in command.params if each.required}
