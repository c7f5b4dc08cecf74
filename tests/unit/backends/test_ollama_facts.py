"""Facts of a daemon and its models, from its responses."""

from __future__ import annotations

from typing import Any

import pytest

from app.relay.routes.ollama_models import OLLAMA_VERSION
from backends.ollama.config import OllamaConfig
from backends.ollama.facts import LoadedModel, Tag, loaded, shown, tags, warning, weights
from backends.ollama.names import full_name
from tests.rigs.transcripts import transcripts

SHOW = transcripts()["007_show"].objects[0]


def config(**given: Any) -> OllamaConfig:
    return OllamaConfig(kind="ollama", **given)


CONTEXTS: dict[str, tuple[dict[str, Any], str | None, int]] = {
    "the model's own": ({"max_num_ctx": 100_000}, None, 8192),
    "at most the setting": ({"max_num_ctx": 4096}, None, 4096),
    "the Modelfile's": ({"max_num_ctx": 4096}, 'stop      "x"\nnum_ctx                        16384\nseed 1', 16384),
    "the file's": ({"num_ctx": 512}, "num_ctx 16384", 512),
    "one model's": ({"num_ctx": 512, "num_ctx_by_model": {"M": 1024}}, "num_ctx 16384", 1024),
    "another model's": ({"num_ctx_by_model": {"n": 1024}}, "num_ctx 16384", 16384),
}


@pytest.mark.parametrize(("given", "parameters", "expected"), CONTEXTS.values(), ids=CONTEXTS)
def test_each_model_has_one_context(given: dict[str, Any], parameters: str | None, expected: int) -> None:
    facts = shown(config(**given), "m:latest", {**SHOW, "parameters": parameters})

    assert facts is not None
    assert facts.num_ctx == expected


def test_abilities_and_the_stay_are_known() -> None:
    facts = shown(config(keep_alive_s=60), "m", transcripts()["201_show_tools_caps"].objects[0])

    assert facts is not None
    assert (facts.abilities, facts.keep_alive_s) == (("completion", "tools"), 60)
    assert shown(config(), "m", None) is None


def test_what_is_in_memory_is_known_by_its_full_name() -> None:
    entry = transcripts()["013_ps_loaded"].objects[0]["models"][0]
    assert loaded({"models": [entry]}) == {"smollm2:135m": LoadedModel(209505483, entry["expires_at"])}
    assert loaded(transcripts()["006_ps_empty"].objects[0]) == {}
    assert loaded({"models": [{}, 7, {"name": "m"}]}) == {"m:latest": LoadedModel()}
    assert loaded(None) == {}


def test_tags_are_names_with_digests_and_sizes() -> None:
    models = tags(transcripts()["173_tags_two"].objects[0]) or {}

    assert list(models) == ["mymodel:latest", "mymodel2:v1", "smollm2:135m"]
    assert {len(each.digest) for each in models.values()} == {64}
    assert min(each.size_bytes for each in models.values()) > 90_000_000
    assert tags({"models": [{"name": "m", "size": "?"}]}) == {"m": Tag("", 0)}
    assert tags({"models": None}) is None
    assert tags([]) is None


def test_weights_are_known_by_their_digest() -> None:
    lines = f"# FROM m\n\nFROM /usr/lib/ollama/models/blobs/sha256-{'a' * 64}\nTEMPLATE x"

    assert weights({"modelfile": lines}) == "a" * 64
    assert weights({"modelfile": lines.replace("\n", "\r\n")}) == "a" * 64
    assert [weights(show) for show in ({"modelfile": "FROM ./x.gguf"}, {"modelfile": 7}, {}, None)] == [None] * 4


@pytest.mark.parametrize(
    ("version", "holes"),
    [
        ("0.1.10", 6),
        ("0.1.34", 4),
        ("0.17.0", 3),
        ("0.33.0-rc2", 2),
        ("v0.34.1", 2),
        ("0.35.0", 0),
        ("1.0.0", 0),
        (OLLAMA_VERSION, 0),  # what we say of ourselves
        ("0.0.0", 6),
        ("dev", 0),
    ],
)
def test_an_old_version_is_named_with_its_holes(version: str, holes: int) -> None:
    sentence = warning(version)

    assert (sentence or "").count("CVE-") == holes
    assert (sentence is None) is (holes == 0)
    assert sentence is None or (version in sentence and "0.35.0" in sentence)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m", "m:latest"),
        ("M:Q4", "m:q4"),
        ("host:5000/ns/m", "host:5000/ns/m:latest"),
        ("hf.co/Org/Model:Q4_K_M", "hf.co/org/model:q4_k_m"),
    ],
)
def test_every_spelling_of_a_name_has_one_full_name(name: str, expected: str) -> None:
    assert full_name(name) == expected
