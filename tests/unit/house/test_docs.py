"""The documentation is complete and true, as far as a program can tell."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import click
import httpx
import pytest
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app.__main__ import cli
from app.config.load import loads
from app.config.model import DEMO_MODEL, Config, FallbackConfig, ModelConfig, ServerConfig, TargetConfig
from app.config.settings import Settings
from app.config.team import AuditConfig, BudgetConfig, KeyConfig, PriceConfig, ReplacedKey, StoreConfig, UsageConfig
from app.config.tracing import TracingConfig
from app.config.yaml_document import parse
from app.errors import TABLE
from app.llamafactory.flags import FLAGS
from app.metrics import FAMILIES
from app.supervisor.admin.app import create_admin
from app.supervisor.console import curl
from app.supervisor.fixed_settings import READ_AT_START
from app.supervisor.metrics.page import MetricsPage
from app.supervisor.metrics.relay_counters import RelayCounters
from app.supervisor.metrics.snapshot import GatewaySnapshot
from backends.config.base import AdaptableConfig, BackendConfig, ManagedConfig, TimeoutsConfig
from backends.kinds import FOLDERS, engine_kind
from tests import ROOT
from tests.rigs.pages import Page, page, pages
from tests.rigs.route_table import rows_only

PAGES = pages()
EVERY_PAGE = pytest.mark.parametrize("name", PAGES)
# Programs of others in our examples; what they are told is theirs to check.
OTHERS = {
    *("cp", "curl", "docker", "helm", "install", "kubectl", "lm_eval", "pip", "python3", "ray", "systemctl", "useradd"),
    "vllm",
}
# Written by `make bench`, on the machine that it was measured on.
MEASURED = "docs/performance.md"


# -- settings


def own_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields that a class itself adds to its parents'."""
    return {name: model.model_fields[name] for name in model.__annotations__ if name in model.model_fields}


def settings() -> dict[str, FieldInfo]:
    """Every setting by the heading that it must have."""
    settings = {f"server.{name}": field for name, field in ServerConfig.model_fields.items()}
    settings |= {f"backends.NAME.{name}": field for name, field in own_fields(BackendConfig).items()}
    settings |= {f"backends.NAME.{name}": field for name, field in own_fields(ManagedConfig).items()}
    settings |= {f"backends.NAME.timeouts.{name}": field for name, field in TimeoutsConfig.model_fields.items()}
    for kind in FOLDERS:
        config = engine_kind(kind).config
        adaptable = own_fields(AdaptableConfig) if issubclass(config, AdaptableConfig) else {}
        for name, field in {**own_fields(config), **adaptable}.items():
            settings["backends.NAME.kind" if name == "kind" else f"backends.NAME.{name} ({kind})"] = field
    settings |= {f"models.NAME.{name}": field for name, field in ModelConfig.model_fields.items()}
    settings |= {f"models.NAME.targets[].{name}": field for name, field in TargetConfig.model_fields.items()}
    fallbacks = FallbackConfig.model_fields.items()
    settings |= {f"models.NAME.fallbacks[].{field.alias or name}": field for name, field in fallbacks}
    settings |= {f"models.NAME.price.{name}": field for name, field in PriceConfig.model_fields.items()}
    settings |= {f"keys[].{name}": field for name, field in KeyConfig.model_fields.items()}
    settings |= {f"keys[].budget.{name}": field for name, field in BudgetConfig.model_fields.items()}
    settings |= {f"keys[].replaced[].{name}": field for name, field in ReplacedKey.model_fields.items()}
    settings |= {f"store.{name}": field for name, field in StoreConfig.model_fields.items()}
    settings |= {f"usage.{name}": field for name, field in UsageConfig.model_fields.items()}
    settings |= {f"audit.{name}": field for name, field in AuditConfig.model_fields.items()}
    settings |= {f"tracing.{name}": field for name, field in TracingConfig.model_fields.items()}
    settings |= {name: Config.model_fields[name] for name in ("default_model", "pairs")}
    return settings | {name.upper(): field for name, field in Settings.model_fields.items()}


def in_words(field: FieldInfo) -> str:
    """How a description of the setting must begin."""
    default = field.get_default(call_default_factory=True)
    match default:
        case _ if field.is_required() or default is PydanticUndefined:
            return "Required."
        case BaseModel():
            return "Default: each as below."
        case None | () | {}:
            return "Default: none."
        case "":
            return "Default: empty."
        case (str(word),):
            return f"Default: `{word}`"
        case (str(), *_):
            return f"Default: {', '.join(f'`{word}`' for word in default)}"
        case bool():
            return f"Default: `{str(default).lower()}`"
        case float():
            return f"Default: `{default:g}`"
        case _:
            return f"Default: `{default}`"


@pytest.mark.parametrize("setting", settings())
def test_each_setting_has_its_heading_and_its_true_default(setting: str) -> None:
    told = " ".join(page("docs/configure.md").sections.get(setting, "").split())

    assert told.startswith(in_words(settings()[setting])), told[:60]


def test_every_kind_of_engine_is_named_where_the_kinds_are_told() -> None:
    told = page("docs/configure.md").sections["backends.NAME.kind"]

    assert [kind for kind in FOLDERS if f"`{kind}`" not in told] == []


def test_what_a_reload_cannot_change_is_told_where_one_would_look() -> None:
    told = page("docs/configure.md").sections
    of_reloads = page("docs/operate.md").sections["Reload"]

    assert {
        name for name in ServerConfig.model_fields if "Read at the start" in " ".join(told[f"server.{name}"].split())
    } == set(READ_AT_START)
    assert [name for name in READ_AT_START if f"`{name}`" not in of_reloads.replace("server.", "")] == []


def test_no_setting_is_described_that_does_not_exist() -> None:
    assert page("docs/configure.md").coded == set(settings())


# -- errors


def called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def codes_in(tree: ast.AST) -> Iterator[str]:
    """Every constant that is given as a code to an error."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            second = node.args[1:2] if called(node) == "Problem" else []
            named = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            for value in (*second, *named):
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value
        elif isinstance(node, ast.FunctionDef) and node.name == "bad_request":
            yield from (
                d.value for d in node.args.kw_defaults if isinstance(d, ast.Constant) and isinstance(d.value, str)
            )


@cache
def codes() -> frozenset[str]:
    """Every code that a client can see."""
    codes = {code for _, code, _ in TABLE.values()}
    for path in [*(ROOT / "app").rglob("*.py"), *(ROOT / "backends").glob("*.py")]:
        codes |= set(codes_in(ast.parse(path.read_text())))
    return frozenset(codes)


def test_each_error_code_has_its_heading_and_each_heading_its_code() -> None:
    assert len(codes()) > 25
    assert page("docs/errors.md").coded == codes()


# -- metrics


async def test_each_series_has_its_heading_and_each_heading_its_series(tmp_path: Path) -> None:
    text = await MetricsPage(RelayCounters(), GatewaySnapshot, "1").render()

    series = set(re.findall(r"^# TYPE (\S+)", text.decode(), re.MULTILINE))

    assert page("docs/metrics.md").coded == series | {family.name for family in FAMILIES}


# -- endpoints


async def endpoints() -> set[str]:
    """Every route, as `GET /path`."""
    admin = create_admin(cast("Any", object()), "0", docs=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(admin), base_url="http://admin") as client:
        described = (await client.get("/openapi.json")).json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in described.items() for method in methods}
    rows = [row for row in rows_only().rows if row.is_exact]
    return routes | {
        f"{method} {row.path}" for row in rows for method in row.methods or () if method in ("GET", "POST")
    }


async def test_each_endpoint_has_its_heading_and_each_heading_its_endpoint() -> None:
    assert page("docs/api.md").coded == await endpoints()


# -- the command line


def verbs(group: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every verb by its words."""
    inner: dict[str, click.Command] | None = getattr(group, "commands", None)
    if inner is None:
        yield words, group
    for name, command in (inner or {}).items():
        yield from verbs(command, (*words, name))


@cache
def command_line() -> dict[tuple[str, ...], set[str]]:
    """The options of every verb."""
    return {
        words: {
            option
            for parameter in verb.params
            for option in (*parameter.opts, *parameter.secondary_opts)
            if option.startswith("-")
        }
        for words, verb in verbs(cast("click.Command", typer.main.get_command(cli())))
    }


def test_each_verb_has_its_heading_and_its_options_there() -> None:
    operate = page("docs/operate.md")

    assert operate.coded == {f"modelport {' '.join(words)}" for words in command_line()}
    for words, options in command_line().items():
        told = set(re.findall(r"`(--[\w-]+)`", operate.sections[f"modelport {' '.join(words)}"]))
        assert {option for option in options if option.startswith("--")} - {"--help"} <= told, words


def refuse_unknown(words: list[str]) -> None:
    """Fail for a verb, an option or a make target that does not exist."""
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert {word for word in words[1:] if "=" not in word} <= targets, words
        return
    if words[1:] in (["--install-completion"], ["--show-completion"]):
        return
    verb = next((known for known in command_line() if tuple(words[1 : len(known) + 1]) == known), None)
    assert verb is not None, words
    options = {word.partition("=")[0] for word in words if word.startswith("-")}
    theirs = {f"--{name}" for name in FLAGS} if verb == ("api",) else set()
    assert options <= command_line()[verb] | {"--help"} | theirs, words


@EVERY_PAGE
def test_each_command_exists(name: str) -> None:
    for words in PAGES[name].commands:
        program = words[0].rpartition("/")[2]
        if program in ("modelport", "make") and words[1:] != [] and not words[1].isupper():
            refuse_unknown([program, *words[1:]])
        else:
            assert program in OTHERS or words[1:2] == ["VERB"], words


def test_the_service_starts_what_exists() -> None:
    unit = (ROOT / "docker/systemd/modelport.service").read_text()
    started = re.findall(r"^Exec(?:Start|Reload)=\S+/modelport (.*)$", unit, re.MULTILINE)

    assert len(started) == 2
    for words in started:
        refuse_unknown(["modelport", *words.split()])


# -- examples


def configurations() -> list[tuple[str, str]]:
    """Every YAML block that is a configuration."""
    blocks = [(name, block) for name, one in PAGES.items() for block in one.blocks("yaml")]
    return [(name, block) for name, block in blocks if set(parse(block, {}).tree) <= set(Config.model_fields)]


@pytest.mark.parametrize(("name", "text"), configurations())
def test_each_configuration_is_accepted(name: str, text: str) -> None:
    assert loads(text, {}, source=name).models


def test_there_are_configurations_to_check() -> None:
    assert len(configurations()) >= 6


@EVERY_PAGE
def test_each_python_example_is_python(name: str) -> None:
    for block in PAGES[name].blocks("python"):
        compile(block, name, "exec")


def test_the_curl_line_is_the_one_that_the_gateway_prints() -> None:
    printed = curl("http://127.0.0.1:8000", DEMO_MODEL, has_keys=False)

    assert f"{printed}\n" in page("README.md").blocks("bash")


# -- links


def anchored(where: Path, anchor: str) -> bool:
    return not anchor or (where.suffix == ".md" and anchor in Page(where.name, where.read_text()).anchors)


@EVERY_PAGE
def test_each_link_leads_somewhere(name: str) -> None:
    here = ROOT / name
    for path, anchor in PAGES[name].links:
        where = (here.parent / path).resolve() if path else here

        assert where.exists(), path
        assert anchored(where, anchor), f"{path}#{anchor}"


@EVERY_PAGE
def test_each_file_and_folder_of_ours_that_a_page_names_is_there(name: str) -> None:
    """What begins with one of our folders is a path from the root; a bare `name.py` is somewhere in the tree."""
    named = re.findall(r"`([^`\s]+)`", PAGES[name].prose)
    paths = [word for word in named if re.match(r"(app|backends|bench|docker|docs|tests)/(?!KIND)", word)]
    files = [word for word in named if re.fullmatch(r"\w+\.py", word)]
    sources = {path.name for folder in ("app", "backends", "bench", "tests") for path in (ROOT / folder).rglob("*.py")}

    assert [path for path in paths if not any(ROOT.glob(path.rstrip("/")))] == []
    assert [file for file in files if file not in sources] == []


def test_the_map_of_the_tree_has_ten_lines_and_leads_to_what_is_there() -> None:
    """A line begins with one path from the root, and names of others beside it; two spaces end them."""
    (text,) = re.findall(r"^## Where is what\n\n```\n(.*?)^```$", page("README.md").text, re.MULTILINE | re.DOTALL)
    lines = [line.partition("  ")[0].split(", ") for line in text.splitlines()]
    paths = [str(Path(line[0]).parent / name) for line in lines for name in (Path(line[0]).name, *line[1:])]

    assert len(lines) == 10
    assert [path for path in paths if not any(ROOT.glob(path.rstrip("/")))] == []


def test_each_mention_of_a_page_in_the_code_leads_somewhere() -> None:
    sources = [path for folder in ("app", "backends", "bench", "tests") for path in (ROOT / folder).rglob("*.py")]
    for source in sources:
        for name, heading in re.findall(r"(docs/[\w-]+\.md)(?:, \"([^\"]+)\")?", source.read_text()):
            if name != MEASURED:
                assert name in PAGES, f"{source.name}: {name}"
                assert not heading or heading in PAGES[name].sections, f"{source.name}: {name}, {heading}"


@EVERY_PAGE
def test_each_page_answers_one_question_and_keeps_to_the_line(name: str) -> None:
    text = PAGES[name].text

    assert text.startswith("# ")
    assert len(re.findall(r"^# ", PAGES[name].prose, re.MULTILINE)) == 1
    assert [
        line for line in PAGES[name].prose.splitlines() if len(line) > 120 and not line.lstrip().startswith("|")
    ] == []
