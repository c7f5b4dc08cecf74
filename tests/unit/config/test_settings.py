"""app/config/settings.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config.settings import CONTROL_SOCKET, Settings, config_path, resolve, state_folder
from app.config.yaml_document import ConfigError

SECRET = "do-not-show-me"


def test_an_empty_environment_says_nothing() -> None:
    settings = Settings.from_env({})

    assert set(settings.model_dump().values()) == {None}
    assert settings.keys() == ()


def test_the_environment_of_this_process_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_PORT", "9")

    assert Settings.from_env({}).api_port is None


def test_every_variable_is_read_by_its_own_name() -> None:
    env = {
        "API_HOST": "0.0.0.0",
        "API_PORT": "9000",
        "API_KEY": SECRET,
        "API_MODEL_NAME": "gpt-3.5-turbo",
        "FASTAPI_ROOT_PATH": "/llm",
        "MODELPORT_CONFIG": "a.yaml",
        "MODELPORT_STATE": "/tmp/s",
        "MODELPORT_TOOLS": "/tmp/t",
        "MODELPORT_VLLM": "/opt/vllm/bin/vllm",
        "MODELPORT_RELAYS": "3",
        "MODELPORT_METRICS_HOST": "0.0.0.0",
        "MODELPORT_METRICS_PORT": "9464",
        "MODELPORT_LOG_LEVEL": "debug",
        "MODELPORT_LOG_FORMAT": "json",
        "OLLAMA_HOST": "box:1",
        "UNRELATED": "x",
    }

    settings = Settings.from_env(env)

    told = settings.model_dump(exclude={"api_key"})
    assert {name: value for name, value in told.items() if not name.startswith("otel_")} == {
        "api_host": "0.0.0.0",
        "api_port": 9000,
        "api_model_name": "gpt-3.5-turbo",
        "fastapi_root_path": "/llm",
        "modelport_config": Path("a.yaml"),
        "modelport_state": Path("/tmp/s"),
        "modelport_tools": Path("/tmp/t"),
        "modelport_vllm": "/opt/vllm/bin/vllm",
        "modelport_relays": 3,
        "modelport_metrics_host": "0.0.0.0",
        "modelport_metrics_port": 9464,
        "modelport_log_level": "debug",
        "modelport_log_format": "json",
        "ollama_host": "box:1",
    }
    assert settings.keys() == (SECRET,)
    assert SECRET not in repr(settings)


def test_an_empty_variable_is_the_same_as_none() -> None:
    assert Settings.from_env({"API_PORT": "", "API_KEY": ""}) == Settings.from_env({})


def test_every_wrong_variable_is_named_at_once() -> None:
    env = {"API_PORT": "x", "MODELPORT_RELAYS": "0", "MODELPORT_LOG_LEVEL": "loud", "FASTAPI_ROOT_PATH": "x/"}

    with pytest.raises(ConfigError) as caught:
        Settings.from_env(env)

    assert caught.value.errors == [
        "environment: API_PORT: 'x' is not a whole number",
        "environment: FASTAPI_ROOT_PATH: 'x/' is not a path like /llm, without a slash at its end",
        "environment: MODELPORT_RELAYS: '0' is neither a number from 1 to 64 nor auto",
        "environment: MODELPORT_LOG_LEVEL: 'loud' is not allowed here (known: debug, info, warning, error)",
    ]


def test_several_keys_are_split_at_commas_and_counted_once() -> None:
    assert Settings.from_env({"API_KEY": " a, b ,,a"}).keys() == ("a", "b")


@pytest.mark.parametrize("value", [",", " , ", f"{SECRET} x", f"{SECRET}é"])
def test_a_key_that_no_client_could_send_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({"API_KEY": value}).keys()

    assert caught.value.errors[0].startswith("environment: API_KEY: ")
    assert SECRET not in str(caught.value)


def test_flags_come_before_the_environment(tmp_path: Path) -> None:
    env = {"MODELPORT_STATE": "/tmp/other", "MODELPORT_CONFIG": "other.yaml", "MODELPORT_LOG_FORMAT": "json"}

    options = resolve(env, state=tmp_path, config=Path("mine.yaml"), log_format="console")

    assert (options.state, options.config_path, options.log_format) == (tmp_path, Path("mine.yaml"), "console")


def test_the_environment_comes_before_the_defaults(tmp_path: Path) -> None:
    env = {"MODELPORT_STATE": str(tmp_path), "MODELPORT_CONFIG": "other.yaml", "MODELPORT_LOG_LEVEL": "debug"}

    options = resolve(env)

    assert (options.state, options.config_path, options.log_level) == (tmp_path, Path("other.yaml"), "debug")
    assert options.env is env


@pytest.mark.parametrize(("is_terminal", "log_format"), [(True, "console"), (False, "json")])
def test_logs_are_for_people_on_a_terminal_and_for_programs_elsewhere(
    tmp_path: Path, is_terminal: bool, log_format: str
) -> None:
    assert resolve({}, state=tmp_path, is_terminal=is_terminal).log_format == log_format


def test_the_file_in_the_working_folder_is_taken_when_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert config_path(None) is None

    Path("modelport.yaml").touch()

    assert config_path(None) == Path("modelport.yaml")
    assert config_path(Path("other.yaml")) == Path("other.yaml")


def test_the_state_folder_is_the_users_own_unless_given() -> None:
    assert state_folder(None).name == "modelport"
    assert state_folder(Path("~/x")) == Path.home() / "x"
    assert state_folder(Path("x")) == Path.cwd() / "x"


def test_a_state_folder_that_is_too_long_for_a_socket_is_refused_with_its_size() -> None:
    folder = Path("/") / ("ü" * 60)
    size = len(bytes(folder / CONTROL_SOCKET))

    with pytest.raises(ConfigError, match=rf"too long for a Unix socket.*{size} bytes.*MODELPORT_STATE"):
        state_folder(folder)


def test_the_longest_possible_state_folder_is_accepted() -> None:
    folder = Path("/" + "a" * (107 - 1 - 1 - len(CONTROL_SOCKET)))

    assert state_folder(folder) == folder
