"""What a person reads in the terminal."""

from __future__ import annotations

import json
import shlex

import pytest

from app.config.model import DEMO_INSTALL
from app.supervisor.admin.views import listed
from app.supervisor.console import ReportedState, banner, curl, progress
from app.table import Backend, Key, PublicModel, Table, Target, Wildcard
from backends.endpoint import State

URL = "http://127.0.0.1:8000"


def _table(*, keys: tuple[Key, ...] = ()) -> Table:
    return Table(
        version=1,
        models={"security-q4": PublicModel("security-q4", (Target("gpu", "m"),))},
        aliases={},
        wildcards=(Wildcard("ollama/", "daemon"),),
        backends={"gpu": Backend("gpu", "vllm", State.STARTING)},
        keys=keys,
    )


def test_it_says_where_it_listens_and_what_it_serves() -> None:
    text = banner(_table(), version="1.2.3", url=URL, is_loopback=True, chat_model="security-q4")

    assert text.splitlines()[0] == f"Modelport 1.2.3 listens on {URL} (only this machine can reach it)"
    assert "  security-q4  starting  gpu" in text
    assert "  ollama/*     stopped   daemon" in text


def test_what_nobody_configured_is_not_listed() -> None:
    text = banner(_table(), version="1", url=URL, is_loopback=True, chat_model=None, implicit=frozenset({"daemon"}))

    assert "ollama/*" not in text
    assert listed(_table(), (), frozenset({"daemon"})).wildcards == ()
    assert listed(_table(), ()).wildcards == ("ollama/*",)


def test_where_nothing_is_served_it_says_what_helps() -> None:
    nothing = Table(version=1, models={}, aliases={}, wildcards=(Wildcard("", "ollama"),), backends={}, keys=())

    text = banner(nothing, version="1", url=URL, is_loopback=True, chat_model=None, implicit=frozenset({"ollama"}))

    assert "Nothing to serve yet: the demo model is not installed." in text
    assert DEMO_INSTALL in text
    assert "Nothing to serve" not in banner(_table(), version="1", url=URL, is_loopback=True, chat_model="m")


def test_it_says_when_other_machines_can_reach_it() -> None:
    text = banner(_table(), version="1.2.3", url=URL, is_loopback=False, chat_model=None)

    assert "(other machines can reach it)" in text


@pytest.mark.parametrize("name", ["plain", "it's", 'quo"te', "sla/sh $HOME `x`", "üñí"])
def test_a_shell_reads_the_curl_line_as_it_was_meant(name: str) -> None:
    words = shlex.split(curl(URL, name, has_keys=False))

    assert words[:2] == ["curl", f"{URL}/v1/chat/completions"]
    assert json.loads(words[-1])["model"] == name


def test_the_curl_line_takes_the_key_from_the_shell() -> None:
    text = banner(_table(keys=(Key("office", "0" * 64),)), version="1", url=URL, is_loopback=True, chat_model="m")

    assert '-H "Authorization: Bearer $API_KEY"' in text
    assert "one of your keys in API_KEY" in text


def test_without_a_model_to_chat_with_it_lists_the_models() -> None:
    assert curl(URL, None, has_keys=False) == f"curl {URL}/v1/models"


def _lines(*rows: Backend, named: bool = True) -> list[str]:
    """The lines that these situations, one after another and 2 s apart, are told in."""
    seen: dict[str, ReportedState] = {}
    told: list[str] = []
    for turn, row in enumerate(rows):
        seen, lines = progress(seen, {row.name: row}, frozenset({row.name} if named else ()), turn * 2.0)
        told += lines
    return told


def _row(state: State, reason: str | None = None) -> Backend:
    return Backend("gpu", "vllm", state, reason)


def test_a_start_is_told_with_the_time_it_took() -> None:
    told = _lines(_row(State.STOPPED), _row(State.STARTING), _row(State.STARTING), _row(State.READY))

    assert told == ["  gpu: starting …", "  gpu: ready in 4.0 s"]


def test_a_crash_is_told_with_its_reason() -> None:
    told = _lines(_row(State.READY), _row(State.STARTING, "exit code 1"), _row(State.READY))

    assert told == ["  gpu: ready in 0.0 s", "  gpu: exit code 1; starting again …", "  gpu: ready in 2.0 s"]


def test_a_failure_is_told_once() -> None:
    told = _lines(_row(State.STARTING), _row(State.FAILED, "no such file"), _row(State.FAILED, "no such file"))

    assert told == ["  gpu: starting …", "  gpu: failed: no such file"]


def test_a_stop_is_told() -> None:
    told = _lines(_row(State.STARTING), _row(State.STOPPING), _row(State.STOPPED))

    assert told == ["  gpu: starting …", "  gpu: stopping", "  gpu: stopped"]


def test_nobody_hears_of_the_trouble_of_what_was_only_looked_for() -> None:
    assert _lines(_row(State.STARTING), _row(State.FAILED, "refused"), named=False) == []
    assert _lines(_row(State.STARTING), _row(State.READY), named=False) == ["  gpu: ready in 2.0 s"]
