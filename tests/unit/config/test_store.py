"""Where the file says that keys, limits and usage are kept."""

from __future__ import annotations

import pytest

from app.config.load import loads
from app.config.model import Config
from app.config.yaml_document import ConfigError

REST = 'models: {a: {backend: b}}\nbackends: {b: {kind: remote, url: "http://127.0.0.1:9/v1"}}\n'


def load(text: str, **env: str) -> Config:
    return loads(text + REST, env, source="f")


def test_without_a_word_it_is_the_file_in_the_state_folder() -> None:
    store = load("").store

    assert store.url is None
    assert (store.timeout_s, store.key_cache_s, store.assume_gateways) == (2.0, 3600.0, None)


@pytest.mark.parametrize(
    "text", ["store: postgresql://u:${PASSWORD}@db/team\n", "store: {url: 'postgresql://u:${PASSWORD}@db/team'}\n"]
)
def test_a_url_is_the_short_form_and_never_shown(text: str) -> None:
    config = load(text, PASSWORD="hidden-word")

    assert config.store.url is not None
    assert config.store.url.get_secret_value() == "postgresql://u:hidden-word@db/team"
    assert "hidden-word" not in f"{config!r} {config.model_dump()} {config.model_dump_json()}"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("store: mysql://u:hidden-word@db/team\n", "f: store.url: is not a URL of PostgreSQL (`postgresql://USER:"),
        ("store: {url: postgresql://db/team, timeout_s: 0}\n", "f: store.timeout_s: 0 is not a number of at least 0.1"),
        ("store: postgresql://u:a/hidden-word@db/team\n", "f: store.url: is cut where a user or password has one of"),
        (
            "store: {url: 'postgresql://u:hidden-word@db:0/team'}\n",
            "f: store.url: has a port that is not between 1 and",
        ),
        ("store: {urls: [a]}\n", "f: store.urls: 'urls' is not a key here (nearest: url;"),
    ],
)
def test_what_cannot_be_a_store_is_refused_in_a_sentence(text: str, error: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(text)

    assert len(refused.value.errors) == 1
    assert refused.value.errors[0].startswith(error)
    assert "hidden-word" not in refused.value.errors[0]
