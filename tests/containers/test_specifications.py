"""Container files held against what others say of their form: a parser of Dockerfiles, the Compose specification."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from tests import ROOT
from tests.containers.dockerfile import IMAGES, instructions
from tests.journeys.javascript import NODE, locked, printed

HERE = Path(__file__).parent / "node"
COMPOSE = ("docker-compose.yml", "docker/compose.vllm.yml", "docker/compose.team.yml")


@pytest.fixture(scope="module")
def read() -> Any:
    """What the parser reads in each Dockerfile, and the schema."""
    folder = locked(HERE / "package-lock.json", ROOT / "build" / "containers")
    script = folder / "parse.mjs"
    script.write_text((HERE / "parse.mjs").read_text())
    return json.loads(printed([NODE, script, *IMAGES], ROOT))


@pytest.mark.parametrize("name", IMAGES)
def test_a_dockerfile_is_what_the_tests_here_take_it_for(name: str, read: Any) -> None:
    theirs = read["files"][name]
    ours = list(instructions((ROOT / name).read_text()))

    assert [step["word"] for step in theirs] == [step.word for step in ours]
    assert [step["json"] for step in theirs if step["json"]] == [
        step.words() for step in ours if step.text.startswith("[")
    ]
    assert [step["arguments"][-1] for step in theirs if step["word"] == "COPY"] == [
        step.words()[-1] for step in ours if step.word == "COPY"
    ]


@pytest.mark.parametrize("name", COMPOSE)
def test_a_compose_file_is_as_the_specification_has_it(name: str, read: Any) -> None:
    tree = YAML(typ="safe").load((ROOT / name).read_text())

    assert [error.message for error in jsonschema.Draft201909Validator(read["schema"]).iter_errors(tree)] == []


@pytest.mark.parametrize("wrong", [{"prots": []}, {"read_only": "perhaps"}, {"tmpfs": {}}, {"profiles": "ollama"}])
def test_the_specification_finds_what_is_wrong(wrong: dict[str, Any], read: Any) -> None:
    tree = YAML(typ="safe").load((ROOT / COMPOSE[0]).read_text())
    service = copy.deepcopy(dict(tree["services"]["modelport"])) | wrong

    said = list(jsonschema.Draft201909Validator(read["schema"]).iter_errors({"services": {"modelport": service}}))

    assert len(said) == 1


@pytest.mark.parametrize("name", COMPOSE)
def test_every_volume_is_declared_or_a_folder(name: str) -> None:
    tree = YAML(typ="safe").load((ROOT / name).read_text())
    mounted = [text for entry in tree["services"].values() for text in entry.get("volumes", ())]
    sources = [
        text.rpartition(":-")[2].partition("}")[0] if "${" in text else text.partition(":")[0] for text in mounted
    ]

    assert [source for source in sources if not source.startswith("./") and source not in tree["volumes"]] == []
