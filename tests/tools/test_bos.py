"""The token that begins a text (BOS) stands before a prompt as often as in training, whoever writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.certificate import certify
from app.certificate.certificate import Certificate, Fault
from app.conversion.convert import convert
from app.conversion.progress import Unseen
from app.reference.reference import Reference, reference
from backends.llama_cpp.gguf_contents import read_contents
from backends.toolenv.child import call
from backends.toolenv.environment import Toolbox
from tests import ROOT
from tests.journeys.gateway import Gateway
from tests.rigs.planted import SHOWN, observed

KEY = "tokenizer.ggml.add_bos_token"
SCRIPT = Path(__file__).parent / "scripts/make_sentencepiece.py"
TURNS = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[assistant] "
# What the template begins with, where the tokenizer puts BOS before each text in both.
FOLDERS = {"both": "{{ bos_token }}", "only the tokenizer": ""}


def judged(gateway: Gateway, name: str, trained: Reference) -> Certificate:
    """The certificate of a public name, by its prompts."""
    seen = observed(gateway, name, trained, certify.NOTHING, ("prompts",))
    return certify.judge(seen, trained, chats=SHOWN, date="2026-11-27")


@pytest.mark.full
def test_a_first_token_is_neither_doubled_nor_added(
    toolbox: Toolbox, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """As `register` makes the file, and, where only the tokenizer writes it, as the converter would by itself."""
    texts = (ROOT / "tests/recorded/sentences.txt").read_text().splitlines()
    trained, files, says = {}, {}, {}
    for name, written in FOLDERS.items():
        folder = tmp_path / name
        request = {"folder": str(folder), "texts": texts, "chat_template": written + TURNS}
        call(toolbox.python("convert"), SCRIPT, request)
        trained[name] = reference(folder, toolbox)
        known = trained[name].gguf_adds_bos
        file = tmp_path / f"{name.replace(' ', '_')}.gguf"
        files[name] = convert(folder, "f16", file, toolbox, Unseen(), adds_bos=known).path
        says[name] = read_contents(files[name]).metadata[KEY]
    plain = convert(tmp_path / "only the tokenizer", "f16", tmp_path / "plain.gguf", toolbox, Unseen()).path
    served = {**files, "plain": plain}
    names = {name: name.replace(" ", "_") for name in served}
    backends = ", ".join(
        f"{names[name]}: {{kind: llama_cpp, model: '{file}', slots: 1, context_length: 256}}"
        for name, file in served.items()
    )
    models = ", ".join(f"{name}: {{backend: {name}}}" for name in names.values())

    with Gateway(tmp_path, f"backends: {{{backends}}}\nmodels: {{{models}}}\n") as gateway:
        gateway.line("listens on")
        made = {name: judged(gateway, names[name], trained.get(name, trained["only the tokenizer"])) for name in served}

    record_property("the file says that a first token is added", says)
    lines = {name: next(line for line in each.lines if line.key == "prompt") for name, each in made.items()}
    assert (trained["both"].starts_with_bos, trained["only the tokenizer"].starts_with_bos) == (True, False)
    assert says == {"both": True, "only the tokenizer": False}
    assert [name for name in FOLDERS if made[name].faults] == [], lines
    assert made["plain"].faults == (Fault.OTHER_PROMPT,), lines["plain"]
