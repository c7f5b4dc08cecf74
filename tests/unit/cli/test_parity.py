"""What `modelport parity` takes as a model's origin, and what it says first."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import typer

from app.cli.parity import make_folder
from app.cli.parity_origin import Origin, Told, in_order, origin, registered_from
from app.cli.registering import Asked, with_origin
from app.registration.journal import Content, folder_of, opened, read
from app.registration.order import ServingOrder
from tests.rigs.cli import run
from tests.rigs.registration import Copying, Quiet, order_for, register, trained, tuned


def test_a_registered_name_is_held_against_what_it_was_registered_with(tmp_path: Path) -> None:
    state, training = tmp_path / "state", tmp_path / "train.yaml"
    servings = (ServingOrder("law", "vllm", "folder"), ServingOrder("law-embedded", "embedded", "file"))
    order = order_for(tmp_path, "", servings=servings, base=str(tmp_path), context=512)
    register(order, state, trained(), Copying(), Quiet())
    asked = Asked(tuned(tmp_path), "law", (), "q8_0", training=training)
    with opened(folder_of(state, "law"), lambda: Content(name="law", source="", config="")) as journal:
        journal.write(with_origin(journal.content, asked, order))

    expected = Origin(tuned(tmp_path), tmp_path, None, training, 512)
    assert registered_from("law", state) == expected
    assert registered_from("law-embedded", state) == expected
    assert registered_from("a", state) is None


def test_a_journal_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    order = order_for(tmp_path, "", servings=(ServingOrder("law", "vllm", "folder"),))
    register(order, tmp_path / "state", trained(), Copying(), Quiet())
    folder = folder_of(tmp_path / "state", "law")
    old = msgspec.json.decode((folder / "journal.json").read_bytes())
    (folder / "journal.json").write_bytes(
        msgspec.json.encode({key: old[key] for key in ("name", "source", "config", "steps")})
    )

    assert read(folder) is not None
    assert registered_from("law", tmp_path / "state") == Origin(tuned(tmp_path))


def test_what_is_told_goes_before_what_is_known_and_is_not_shown_to_others_where_it_differs(tmp_path: Path) -> None:
    known = Origin(tmp_path, tmp_path / "base", "qwen", None, 512)
    other = tmp_path / "other"

    assert origin(Told(), known, None) == known
    assert origin(Told(folder=tmp_path, template="qwen"), known, None) == known
    assert origin(Told(template="llama3"), known, None) == Origin(
        tmp_path, known.base, "llama3", None, 512, is_other=True
    )
    assert origin(Told(folder=other), known, None) == Origin(other, is_other=True)
    assert origin(Told(folder=other), None, tmp_path) == Origin(other, is_other=True)


def test_a_folder_is_named_where_the_gateway_knows_of_none(tmp_path: Path) -> None:
    made = origin(Told(folder=tmp_path / "tuned"), None, None)

    assert made == Origin(tmp_path / "tuned", is_told=True)
    assert made is not None
    assert made.held_against == "tuned"
    assert origin(Told(template="qwen"), None, None) is None
    served = origin(Told(template="qwen"), None, tmp_path)
    assert served is not None
    assert (served.folder, served.template, served.held_against) == (tmp_path, "qwen", None)


def test_an_adapter_that_is_named_is_not_mistaken_for_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")

    assert origin(Told(folder=tmp_path), None, tmp_path / "base") == Origin(tmp_path, is_told=True)


def test_names_that_the_gateway_does_not_list_are_asked_for_before_anything_is_started() -> None:
    assert in_order(["law", "nosuch"], {"law": {}}) == ["nosuch", "law"]


def test_without_a_gateway_nothing_else_is_said(tmp_path: Path) -> None:
    ended = run(tmp_path, "parity", "a", "b")

    assert ended.code != 0
    assert ended.err.startswith("No gateway is running with the state folder")
    assert "making it ready" not in ended.err


def test_the_folder_for_certificates_is_made_or_refused_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()

    make_folder(tmp_path / "new" / "certificates")
    with pytest.raises(typer.Exit):
        make_folder(tmp_path / "file" / "x")

    assert (tmp_path / "new" / "certificates").is_dir()
    assert "cannot be made: Not a directory" in capsys.readouterr().err
