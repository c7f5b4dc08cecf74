"""What becomes of weights that need neither merging nor converting, and of places that cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.conversion.progress import Unseen
from app.llamafactory.arguments import BadArguments
from app.llamafactory.engine_choice import EngineChoice
from app.llamafactory.prepare import ServedTemplate
from app.llamafactory.weights import made_weights
from backends.toolenv.environment import Toolbox

VLLM, EMBEDDED = EngineChoice("vllm"), EngineChoice("llama_cpp", outtype="f16", merges=True)


NO_TOOLS = Toolbox(Path("/nowhere/tools"), lambda _: None, lambda _: False)
PLAIN = ServedTemplate()


def test_a_gguf_file_is_served_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")

    assert made_weights(file, (), EMBEDDED, tmp_path, NO_TOOLS, Unseen(), template=PLAIN) == (file, [])


def test_one_adapter_for_vllm_is_left_to_it(tmp_path: Path) -> None:
    assert made_weights(tmp_path, ("/a",), VLLM, tmp_path, NO_TOOLS, Unseen(), template=PLAIN) == (tmp_path, [])


@pytest.mark.parametrize("adapters", [(), ("/nowhere",)])
def test_what_cannot_be_converted_is_one_sentence(tmp_path: Path, adapters: tuple[str, ...]) -> None:
    model = tmp_path / "m"
    model.mkdir()

    with pytest.raises(BadArguments) as caught:
        made_weights(model, adapters, EMBEDDED, tmp_path, NO_TOOLS, Unseen(), template=PLAIN)

    assert len(caught.value.errors) == 1
    assert ("/nowhere" if adapters else str(model)) in caught.value.errors[0]


def test_a_state_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "converted").write_text("in the way")

    with pytest.raises(BadArguments, match=r"converted cannot be written: .*; choose another with --state"):
        made_weights(tmp_path, (), EMBEDDED, tmp_path, NO_TOOLS, Unseen(), template=PLAIN)
