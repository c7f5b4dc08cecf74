"""app/keys.py."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from app.keys import digest, find, new
from app.table import Key

NOW = 1_800_000_000.0
ALICE = Key("alice", digest("mp-alice"))
BOB = Key("bob", digest("mp-bob"), expires=NOW + 1)
GONE = Key("gone", digest("mp-gone"), expires=NOW)
KEYS = (ALICE, BOB, GONE)


@pytest.mark.parametrize(
    ("presented", "expected"),
    [
        ("mp-alice", ALICE),
        (b"mp-alice", ALICE),
        ("mp-bob", BOB),
        ("mp-gone", None),
        ("mp-nobody", None),
        ("", None),
        (b"\xff\xfe", None),
        ("\udcff", None),
        (ALICE.sha256, None),
    ],
)
def test_a_key_is_found_by_its_digest_until_it_expires(presented: bytes | str, expected: Key | None) -> None:
    assert find(presented, KEYS, NOW) == expected


def test_a_key_has_ended_at_its_very_second() -> None:
    assert find("mp-bob", KEYS, NOW + 0.5) == BOB
    assert find("mp-bob", KEYS, NOW + 1) is None


def test_nobody_is_found_where_there_are_no_keys() -> None:
    assert find("mp-alice", (), NOW) is None


def test_every_entry_is_compared_whichever_matches() -> None:
    compared: list[str] = []

    class Watched:
        def __init__(self, key: Key) -> None:
            self._key = key
            self.expires = key.expires

        @property
        def sha256(self) -> str:
            compared.append(self._key.name)
            return self._key.sha256

    find("mp-alice", [Watched(key) for key in KEYS], NOW)  # type: ignore[misc]

    assert compared == ["alice", "bob", "gone"]


def test_a_new_key_is_its_own_and_opens_with_its_digest() -> None:
    secret, sha256 = new("Front Office")
    other, _ = new("Front Office")

    assert secret.startswith("mp-frontoffice-")
    assert secret != other
    assert sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert find(secret, [Key("office", sha256)], NOW) is not None


def test_a_name_without_letters_makes_a_key_all_the_same() -> None:
    assert new("—")[0].startswith("mp-")


def test_a_relay_can_load_keys_without_the_configuration() -> None:
    code = "import sys, app.keys; print(sorted({'pydantic', 'app.config.model', 'ruamel.yaml'} & set(sys.modules)))"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "[]"
