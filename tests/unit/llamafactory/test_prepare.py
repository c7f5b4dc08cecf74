"""What is made ready before an engine starts: folders that are looked at, files that are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.llamafactory.arguments import Arguments, BadArguments
from app.llamafactory.configuration import ServedParts
from app.llamafactory.prepare import (
    adapter_folders,
    fine_tune,
    local,
    of_reference,
    served_parts,
    served_template,
    tool_parser,
    write,
)
from app.reference.reference import Reference

HERMES = '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>'


class NoTools:
    """No tool environment can be had."""

    def python(self, tool: str) -> Path:
        raise AssertionError(tool)


def folder(place: Path, name: str = "m", **config: Any) -> Path:
    made = place / name
    made.mkdir()
    (made / "config.json").write_text(json.dumps({"max_position_embeddings": 8192, **config}))
    return made


def adapter(place: Path, rank: int = 8) -> Path:
    made = place / "a"
    made.mkdir()
    (made / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return made


def given(model: Path | str, **values: Any) -> Arguments:
    return Arguments({"model_name_or_path": str(model), **values})


def trained(**values: Any) -> Reference:
    plain: dict[str, Any] = {
        "source": "llamafactory",
        "template": "qwen",
        "reason": "",
        "rendered": {"tool result": HERMES},
        "own": {},
        "own_differs": False,
        "stops": (),
        "default_system": None,
        "chat_template": None,
    }
    return Reference(**{**plain, **values})


def test_a_folder_and_its_adapter_are_known_before_the_start(tmp_path: Path) -> None:
    known = fine_tune(given(folder(tmp_path), adapter_name_or_path=str(adapter(tmp_path, 48))))

    assert (known.context_length, known.lora_rank, known.is_here, known.is_gguf) == (8192, 48, True, False)


def test_a_name_on_the_hub_is_left_to_the_engine() -> None:
    known = fine_tune(given("Qwen/Qwen2.5-0.5B-Instruct"))

    assert (known.is_here, known.config) == (False, {})
    assert local("Qwen/Qwen2.5-0.5B-Instruct") is None


def test_adapters_may_be_in_a_folder_of_each(tmp_path: Path) -> None:
    inner = tmp_path / "run" / "checkpoint-9"
    inner.mkdir(parents=True)

    assert adapter_folders(given("/m", adapter_name_or_path=str(tmp_path / "run"), adapter_folder="checkpoint-9")) == (
        str(inner),
    )


@pytest.mark.parametrize("name", ["/nowhere/m", "./nowhere", "~/no-such-folder-here", "a/b/c"])
def test_a_path_that_leads_nowhere_is_said(name: str) -> None:
    with pytest.raises(BadArguments, match="is not there: check --model_name_or_path"):
        fine_tune(given(name))


def test_what_is_not_a_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("")
    (tmp_path / "empty").mkdir()

    with pytest.raises(BadArguments, match="is a file and not a GGUF file"):
        fine_tune(given(tmp_path / "x.txt"))
    with pytest.raises(BadArguments, match=r"it has no config\.json"):
        fine_tune(given(tmp_path / "empty"))
    with pytest.raises(BadArguments, match=r"it has no adapter_config\.json"):
        fine_tune(given(folder(tmp_path), adapter_name_or_path=str(tmp_path / "empty")))


def test_an_adapter_in_the_models_place_is_told_where_it_belongs(tmp_path: Path) -> None:
    lora = adapter(tmp_path)
    (lora / "adapter_config.json").write_text(json.dumps({"r": 8, "base_model_name_or_path": "/models/base"}))

    with pytest.raises(BadArguments, match=r"belongs to --adapter_name_or_path, and .* its base \(/models/base\)"):
        fine_tune(given(lora))


def test_without_a_flag_of_prompts_no_tool_is_asked_for(tmp_path: Path) -> None:
    served = served_template(given("org/model"), tmp_path, NoTools(), is_embedded=False)

    assert (served.file, served.generation_config, served.stops) == (None, None, ())
    assert "the tokenizer's own" in served.notes[0]


@pytest.mark.parametrize("name", ["m.gguf", "org/model"])
def test_what_cannot_be_compared_is_said(tmp_path: Path, name: str) -> None:
    if name.endswith(".gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
        name = str(tmp_path / name)

    served = served_template(given(name, template="qwen"), tmp_path, NoTools(), is_embedded=True)

    assert served.file is None
    assert served.notes[0].startswith("--template: not compared")


def test_a_reference_that_the_tokenizer_says_too_needs_no_file(tmp_path: Path) -> None:
    served = of_reference(trained(), folder(tmp_path), tmp_path, is_embedded=False)

    assert (served.file, served.generation_config, served.tool_parser) == (None, None, "hermes")
    assert served.notes == ("template qwen: the tokenizer's own says the same, and is served",)


def test_another_template_is_served_from_a_file_and_its_stop_tokens_from_another(tmp_path: Path) -> None:
    model = folder(tmp_path, eos_token_id=2)
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "temperature": 0.1}))
    reference = trained(
        chat_template="{{ messages }}",
        own_differs=True,
        own_difference="at character 0",
        stops=("<end>", "<|im_end|>"),
        stop_ids={"<|im_end|>": 7},
        default_system="You are kind.",
        notes=("one more",),
    )

    served = of_reference(reference, model, tmp_path, is_embedded=False)
    parts = served_parts(ServedParts("/m"), served)

    assert served.file is not None
    assert served.file.read_text() == "{{ messages }}"
    assert served.generation_config is not None
    assert json.loads((served.generation_config / "generation_config.json").read_text()) == {
        "eos_token_id": [2, 7],
        "temperature": 0.1,
    }
    assert (served.stops, served.stop_tokens) == (("<end>",), ("<|im_end|>",))
    assert "(at character 0)" in served.notes[0]
    assert served.notes[1:] == ('without a system prompt it is "You are kind."', "one more")
    assert (parts.chat_template, parts.generation_config) == (str(served.file), str(served.generation_config))
    assert of_reference(reference, model, tmp_path, is_embedded=True).generation_config is None


def test_stop_tokens_that_the_model_names_itself_need_no_file(tmp_path: Path) -> None:
    model = folder(tmp_path, eos_token_id=[2, 7])

    assert of_reference(trained(stop_ids={"a": 7}), model, tmp_path, is_embedded=False).generation_config is None


def test_a_file_is_named_by_its_text_and_whole(tmp_path: Path) -> None:
    one, again, other = (write(tmp_path, text, ".jinja") for text in ("a", "a", "b"))

    assert one == again != other
    assert sorted(path.name for path in one.parent.iterdir()) == sorted((one.name, other.name))


def test_a_state_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "served").write_text("in the way")

    with pytest.raises(BadArguments, match="cannot be written"):
        write(tmp_path, "a", ".jinja")


@pytest.mark.parametrize(
    ("text", "parser"),
    [
        (HERMES, "hermes"),
        ('{"name": "weather", "parameters": {}}', "llama3_json"),
        ("[TOOL_CALLS] [{}]", "mistral"),
        ("<tool_call>\n<function=weather>", "qwen3_coder"),
        ("Action: weather\nAction Input: {}", None),
    ],
)
def test_the_parser_is_that_of_how_calls_are_written(text: str, parser: str | None) -> None:
    assert tool_parser(text) == parser
