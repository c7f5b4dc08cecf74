"""`modelport keys`: what is written on the command line, keys in a file, keys in a store while no gateway runs."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from app.cli.key_options import OptionError, fields, limits_in_words, seconds
from app.config.load import loads
from app.keys import digest
from tests.rigs.cli import run

NOW = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)
FILE = """\
# ours
backends: {cloud: {kind: remote, url: "http://127.0.0.1:9/v1"}}
models:
  chat: {backend: cloud}  # the one
keys:
  - name: office  # floor 2
    sha256: "AAAA"
    rpm: 5
  - {name: night, sha256: "BBBB", priority: batch}
""".replace("AAAA", "a" * 64).replace("BBBB", "b" * 64)


GIVEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "models": ({"models": "chat, ollama/*"}, {"models": ["chat", "ollama/*"]}),
    "all models": ({"models": "all"}, {"models": None}),
    "days": ({"days": 2}, {"expires": "2026-11-30T12:00:00Z"}),
    "a day": ({"expires": "2027-12-31"}, {"expires": "2027-12-31"}),
    "no end": ({"expires": "none"}, {"expires": None}),
    "counts": (
        {"rpm": "600", "tpm": "60k", "max_parallel": "1_000"},
        {"rpm": 600, "tpm": 60_000, "max_parallel": 1000},
    ),
    "no limit": ({"rpm": "none", "team": "none", "budget": "none"}, {"team": None, "rpm": None, "budget": None}),
    "tokens": ({"budget": "5M tokens per week"}, {"budget": {"tokens": 5_000_000, "per": "week"}}),
    "half of it": ({"budget": "1.5M tokens/day"}, {"budget": {"tokens": 1_500_000, "per": "day"}}),
    "money": ({"budget": "20 money per month"}, {"budget": {"money": 20, "per": "month"}}),
    "a little money": ({"budget": "0.5 money a day"}, {"budget": {"money": 0.5, "per": "day"}}),
}


@pytest.mark.parametrize(("given", "read"), GIVEN.values(), ids=GIVEN)
def test_what_is_written_becomes_the_fields_of_a_key(given: dict[str, Any], read: dict[str, Any]) -> None:
    assert fields(**given, now=NOW) == read


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a word": ({"rpm": "many"}, "--rpm 'many' is not a whole number of at least 1 (or none)."),
    "nothing at all": ({"max_parallel": "0"}, "--max-parallel '0' is not a whole number"),
    "half a token": ({"tpm": "1.5"}, "--tpm '1.5' is not a whole number"),
    "no unit": ({"budget": "20 per month"}, "--budget '20 per month' is not such as '5M tokens per week'"),
    "no time": ({"budget": "20 money"}, "--budget '20 money' is not such as"),
    "no money": ({"budget": "0 money per day"}, "--budget '0 money per day' is a budget of nothing."),
    "two points": ({"budget": "1.2.3 money per day"}, "is a budget of nothing."),
    "no day": ({"expires": "tomorrow"}, "--expires 'tomorrow' is neither a day (2027-12-31) nor a time"),
    "models of none": ({"models": "none"}, "--models 'none' names no model: `all` opens every one"),
    "models of a variable that is not set": ({"models": ""}, "--models '' names no model"),
    "both ends": ({"expires": "2027-01-01", "days": 1}, "--days and --expires say the same"),
}


@pytest.mark.parametrize(("given", "told"), BAD.values(), ids=BAD)
def test_what_cannot_be_read_is_named_with_its_value(given: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError) as refused:
        fields(**given, now=NOW)

    assert told in str(refused.value)


def test_times_are_written_as_people_write_them() -> None:
    assert [seconds("--grace", text) for text in ("0", "90", "90s", "15m", "24h", "7d")] == [
        0.0,
        90.0,
        90.0,
        900.0,
        86_400.0,
        604_800.0,
    ]
    with pytest.raises(OptionError, match="--grace 'soon' is not a time such as"):
        seconds("--grace", "soon")


def test_limits_are_one_line() -> None:
    none = {"rpm": None, "tpm": None, "max_parallel": None, "budget": None}
    money = {"rpm": 600, "tpm": 60_000, "max_parallel": 3, "budget": {"tokens": None, "money": 20.0, "per": "month"}}

    assert limits_in_words(none) == ""
    assert limits_in_words(money) == "600 rpm, 60,000 tpm, 3 at once, 20 money per month"
    assert limits_in_words({**none, "budget": {"tokens": 5_000_000, "per": "day"}}) == "5,000,000 tokens per day"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "its.yaml"
    path.write_text(FILE)
    return path


def entries(path: Path) -> dict[str, Any]:
    return {key.name: key for key in loads(path.read_text(), {}, source="f").keys}


def test_a_key_of_the_file_is_changed_in_its_place_and_all_else_stays(tmp_path: Path, file: Path) -> None:
    args = ("--config", str(file))
    changed = run(tmp_path, "keys", "edit", "office", "--rpm", "7", "--tpm", "100", "--team", "law", *args)
    limited = run(
        tmp_path, "keys", "edit", "night", "--budget", "5M tokens per week", "--priority", "interactive", *args
    )
    freed = run(tmp_path, "keys", "edit", "office", "--rpm", "none", *args)

    assert (changed.code, limited.code, freed.code) == (0, 0, 0), (changed.err, limited.err, freed.err)
    assert changed.out == f"{file}: changed office. A running gateway takes it with `modelport reload`.\n"
    text = file.read_text()
    assert text.startswith(FILE[: FILE.index("keys:")])
    assert "name: office  # floor 2" in text
    office, night = entries(file)["office"], entries(file)["night"]
    assert (office.rpm, office.tpm, office.team, office.sha256) == (None, 100, "law", "a" * 64)
    assert (night.priority, night.budget.tokens, night.budget.per) == ("interactive", 5_000_000, "week")


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    result = run(tmp_path, "keys", "new", "office", "--config", "none.yaml")

    assert (result.code, result.err) == (2, "There is no file none.yaml: `modelport init` writes one.\n")


def test_a_key_of_the_file_is_rotated_and_the_old_one_opens_for_a_while(tmp_path: Path, file: Path) -> None:
    first = run(tmp_path, "keys", "rotate", "office", "--grace", "2h", "--config", str(file), "--json")
    again = run(tmp_path, "keys", "rotate", "office", "--config", str(file), "--json")
    at_once = run(tmp_path, "keys", "rotate", "night", "--grace", "0", "--config", str(file), "--json")

    secrets = [json.loads(each.out)["key"] for each in (first, again, at_once)]
    office, night = entries(file)["office"], entries(file)["night"]
    assert office.sha256 == digest(secrets[1])
    assert [old.sha256 for old in office.replaced] == ["a" * 64, digest(secrets[0])]
    assert (night.sha256, night.replaced) == (digest(secrets[2]), ())
    assert office.rpm == 5


def test_what_was_replaced_and_has_ended_leaves_the_file(tmp_path: Path, file: Path) -> None:
    ended = f'replaced: [{{sha256: "{"c" * 64}", until: 2020-01-01}}]'
    file.write_text(FILE.replace("    rpm: 5\n", f"    rpm: 5\n    {ended}\n"))

    run(tmp_path, "keys", "rotate", "office", "--config", str(file))

    assert [old.sha256 for old in entries(file)["office"].replaced] == ["a" * 64]


def test_a_key_of_the_file_is_taken_out(tmp_path: Path, file: Path) -> None:
    first = run(tmp_path, "keys", "revoke", "office", "--config", str(file))
    left = file.read_text()
    second = run(tmp_path, "keys", "revoke", "night", "--config", str(file))

    assert (first.code, second.code) == (0, 0), (first.err, second.err)
    assert left == FILE.replace(FILE[FILE.index("  - name: office") : FILE.index("  - {name")], "")
    assert entries(file) == {}


def test_a_key_that_the_file_does_not_have_is_named_with_those_that_it_has(tmp_path: Path, file: Path) -> None:
    ended = run(tmp_path, "keys", "edit", "ofice", "--rpm", "1", "--config", str(file))
    nothing = run(tmp_path, "keys", "edit", "office", "--config", str(file))

    assert (ended.code, ended.err) == (2, f"{file} has no key 'ofice' (there: office, night).\n")
    assert (nothing.code, file.read_text()) == (2, FILE)
    assert "Nothing to change" in nothing.err


def test_the_keys_of_a_file_are_listed_without_their_digests(tmp_path: Path, file: Path) -> None:
    listed = run(tmp_path, "keys", "list", "--config", str(file))

    assert [re.split(r"\s{2,}", line) for line in listed.out.splitlines()] == [
        ["key", "kept in", "state", "role", "models", "limits", "priority"],
        ["office", "file", "good", "user", "all", "5 rpm"],
        ["night", "file", "good", "user", "all", "batch"],
    ]
    assert "a" * 64 not in listed.out


def test_without_a_gateway_and_a_store_the_entry_is_printed(tmp_path: Path) -> None:
    made = run(tmp_path, "keys", "new", "office", "--models", "chat", "--rpm", "60", "--budget", "1 money per day")
    listed = run(tmp_path, "keys", "list")
    needed = run(tmp_path, "keys", "revoke", "office")

    (entry,) = loads(
        "backends: {c: {kind: ollama}}\nmodels: {chat: {backend: c}}\n" + made.out[made.out.index("keys:") :],
        {},
        source="f",
    ).keys
    assert entry.sha256 == digest(made.out.split()[5])
    assert (entry.models, entry.rpm, entry.role) == (("chat",), 60, "user")
    assert listed.out == "There is no key: make one with `modelport keys new NAME`.\n"
    assert (needed.code, needed.err[:26]) == (3, "No gateway is running here")


def test_keys_of_a_store_are_kept_there_while_no_gateway_runs(tmp_path: Path) -> None:
    """The state folder has a store from the last gateway; what that knew is not what the next one goes by."""
    (tmp_path / "modelport.yaml").write_text(FILE)
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "lock").touch()
    (tmp_path / "state" / "store.db").touch()
    (tmp_path / "state" / "keys.json").write_text("{}")

    made = run(tmp_path, "keys", "new", "ada", "--rpm", "5", "--models", "chat", "--json")
    taken = run(tmp_path, "keys", "new", "office")
    unknown = run(tmp_path, "keys", "new", "bob", "--models", "chatt")
    over = run(tmp_path, "keys", "new", "bob", "--expires", "2020-01-01")
    ends = ("--expires", "2020-01-01", "--budget", "20 money per month")
    changed = run(tmp_path, "keys", "edit", "ada", "--name", "eve", *ends)
    theirs = run(tmp_path, "keys", "edit", "office", "--rpm", "1")
    rotated = run(tmp_path, "keys", "rotate", "eve", "--grace", "0")
    listed = json.loads(run(tmp_path, "keys", "list", "--json").out)["data"]
    ended = run(tmp_path, "keys", "revoke", "eve")
    again = run(tmp_path, "keys", "revoke", "eve")

    assert made.code == 0, made.err
    assert json.loads(made.out)["entry"]["rpm"] == 5
    assert (taken.code, taken.err) == (1, "There is a key 'office' in the configuration already.\n")
    assert (unknown.code, unknown.err) == (1, "'chatt' is not a model here (known: chat).\n")
    assert "No model has a `price`" in changed.err
    assert (over.code, over.err) == (2, "--expires '2020-01-01' is over already: such a key opens nothing.\n")
    assert (changed.code, rotated.code, ended.code) == (0, 0, 0), (changed.err, rotated.err, ended.err)
    assert "is one of the configuration file: change it there" in theirs.err
    assert [(key["name"], key["place"], key["state"]) for key in listed] == [
        ("office", "file", "good"),
        ("night", "file", "good"),
        ("eve", "store", "expired"),
    ]
    assert (again.code, again.err) == (1, "The key 'eve' was revoked.\n")
    assert not (tmp_path / "state" / "keys.json").exists()
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "store.db")) as store:
        noted = store.execute("SELECT action, target, status, via FROM audit ORDER BY at").fetchall()
    assert noted == [
        ("keys.new", "ada", 200, "command"),
        ("keys.edit", "ada", 200, "command"),
        ("keys.rotate", "eve", 200, "command"),
        ("keys.revoke", "eve", 200, "command"),
    ]
