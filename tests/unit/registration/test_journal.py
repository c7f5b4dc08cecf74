"""app/registration/journal.py and content.py: what is remembered of a registration, and what was meant by its key."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.registration.content import folder_digest
from app.registration.journal import Content, Journal, Made, RegistrationError, folder_of, names, opened, read

NOW = datetime.datetime(2026, 11, 27, 12, tzinfo=datetime.UTC)


def fresh() -> Content:
    return Content(name="law", source="/m", config="/c.yaml")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with opened(folder_of(tmp_path, "law"), fresh) as one:
        yield one


def test_a_step_counts_once_it_is_finished_and_only_for_its_key(journal: Journal) -> None:
    made = Made(what="file", path=str(journal.folder / "x.gguf"))
    journal.begin("convert", "k1", made, now=NOW)
    assert journal.done("convert", "k1") is None

    journal.finish("convert", 1.5, (made,), {"bytes": 7})

    record = journal.done("convert", "k1")
    assert record is not None
    assert record.result == {"bytes": 7}
    assert journal.done("convert", "k2") is None
    assert read(journal.folder) == journal.content


def test_what_a_killed_step_was_about_to_make_is_known_beside_what_it_made_before(journal: Journal) -> None:
    old, new = Made(what="file", path="/a"), Made(what="file", path="/b")
    journal.begin("convert", "k1", old, now=NOW)
    journal.finish("convert", 1.0, (old,), {})

    journal.begin("convert", "k2", new, now=NOW)

    after = read(journal.folder)
    assert after is not None
    assert Journal(journal.folder, after).made() == [new, old]


def test_files_that_the_journal_does_not_name_are_swept_away(journal: Journal) -> None:
    kept, left = journal.folder / "kept.gguf", journal.folder / "left.gguf"
    (journal.folder / "half").mkdir()
    for file in (kept, left, journal.folder / "half/x"):
        file.write_bytes(b"x")
    made = Made(what="file", path=str(kept))
    journal.begin("convert", "k", made, now=NOW)
    journal.finish("convert", 1.0, (made,), {})
    journal.log("converted", NOW)

    journal.sweep()

    assert sorted(path.name for path in journal.folder.iterdir()) == ["journal.json", "kept.gguf", "log.txt"]


def test_a_second_command_for_the_same_name_says_so(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "law")

    with (
        opened(folder, fresh),
        pytest.raises(RegistrationError, match="another command works on 'law'"),
        opened(folder, fresh),
    ):
        pass


def test_a_registration_that_did_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with opened(folder_of(tmp_path, "law"), fresh) as journal:
        journal.log("read", NOW)

    assert not folder_of(tmp_path, "law").exists()
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["law", "org/law:v1", "..", ".hidden", "Größe 7", "a%2Fb"])
def test_each_name_has_one_folder_of_its_own_below_the_state(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, name)
    with opened(folder, lambda: Content(name=name, source="", config="")) as journal:
        journal.begin("x", "k", now=NOW)

    assert folder.parent == tmp_path / "registrations"
    assert names(tmp_path) == [name]


def test_a_damaged_journal_is_told(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "law")
    folder.mkdir(parents=True)
    (folder / "journal.json").write_text('{"name": ')

    with pytest.raises(RegistrationError, match="is damaged"), opened(folder, fresh):
        pass


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    return folder


def digest(folder: Path) -> str:
    return folder_digest(folder, {}, lambda done, total: None)[0]


def test_the_content_hash_follows_what_is_in_the_files_and_not_when_they_were_written(model: Path) -> None:
    before = digest(model)
    os.utime(model / "model.safetensors", (1, 1))
    assert digest(model) == before

    (model / "model.safetensors").write_bytes(b"WEIGHTS")

    assert digest(model) != before


@pytest.mark.parametrize("name", ["trainer_state.json", "loss.png", "Modelfile", "x.gguf", ".hidden.json"])
def test_what_a_training_leaves_beside_the_model_changes_nothing(model: Path, name: str) -> None:
    before = digest(model)
    (model / name).write_text("{}")

    assert digest(model) == before


def test_a_file_is_read_once_as_long_as_it_does_not_change(model: Path) -> None:
    told: list[tuple[int, int]] = []
    first, stamps = folder_digest(model, {}, lambda done, total: told.append((done, total)))
    path = str(model / "model.safetensors")
    remembered = {**stamps, path: (*stamps[path][:2], "f" * 64)}

    assert told[-1] == (9, 9)
    assert folder_digest(model, remembered, lambda done, total: None)[0] != first
