"""app/supervisor/admin/views.py, ConfigDigest: whether two gateways serve the same."""

from __future__ import annotations

import pytest

from app.config.load import loads
from app.supervisor.admin.views import ConfigDigest

FILE = """
server: {port: 8000}
store: {url: "postgresql://user:${WORD}@host/database"}
backends: {cloud: {kind: remote, url: "http://engines:8000/v1", api_key: "${KEY}"}}
models: {chat: {backend: cloud}}
keys: [{name: office, sha256: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", rpm: 60}]
"""


def digest(text: str = FILE, **env: str) -> str:
    return ConfigDigest().of(loads(text, {"KEY": "one", "WORD": "two"} | env, source="modelport.yaml"))


def test_two_gateways_with_one_file_show_the_same_whatever_is_of_their_machines() -> None:
    assert digest() == digest(FILE.replace("8000}", "9000, relays: 2, memory_gb: 8}"))
    assert len(digest()) == 16


def test_nobody_can_try_secrets_on_it() -> None:
    assert digest() == digest(KEY="another", WORD="other")


@pytest.mark.parametrize(
    ("old", "new"),
    [("rpm: 60", "rpm: 61"), ("engines:8000", "engines:8001"), ("chat:", "talk:"), ("01234567", "11234567")],
)
def test_what_serves_other_clients_or_asks_other_engines_shows_another(old: str, new: str) -> None:
    assert digest(FILE.replace(old, new, 1)) != digest()


def test_it_is_of_the_configuration_in_force() -> None:
    shown = ConfigDigest()
    first, second = (loads(FILE.replace("60", rpm), {"KEY": "a", "WORD": "b"}, source="f") for rpm in ("60", "61"))

    assert shown.of(first) == shown.of(first) != shown.of(second)
    assert shown.of(first) == digest()
