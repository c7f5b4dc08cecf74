"""What we use of other packages beyond what they promise: every such name is listed here, and is there.

A release of one of them that drops a name fails here by its name, and so does a use of one that is not listed.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import textwrap
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import uvicorn
from packaging.requirements import Requirement
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.relay.http.protocol import ServerProtocol
from app.relay.http.response import ClientResponse
from app.supervisor.admin.team.peers import AdminProtocol
from tests import ROOT
from tests.unit.house.test_architecture import FILES, imports, name_of

# Of uvicorn's classes, which promise nothing of this: what is called, read or set by us.
UVICORN: dict[type, set[str]] = {
    HttpToolsProtocol: {
        *(
            "_start_asgi_task",
            "_unset_keepalive_if_required",
            "client",
            "connections",
            "expect_100_continue",
            "tasks",
            "cycle",
            "flow",
            "headers",
            "loop",
            "parser",
            "pipeline",
        ),
        *("scope", "server_state", "timeout_keep_alive_task", "transport", "url"),
    },
    RequestResponseCycle: {
        *("default_headers", "disconnected", "keep_alive", "message_event", "more_body", "on_response"),
        *("response_complete", "response_started", "transport", "waiting_for_100_continue"),
    },
    FlowControl: {"pause_reading", "read_paused", "resume_reading", "write_paused"},
    ServerState: {"default_headers", "total_requests"},
}
# What is overridden: uvicorn, or its parser, calls it, and ours calls uvicorn's own.
OVERRIDDEN = {
    *("on_message_begin", "on_header", "on_headers_complete", "on_body", "on_message_complete"),
    *("on_response_complete", "timeout_keep_alive_handler"),
}
# What these are called in our three classes.
RECEIVERS: dict[type, dict[str, type]] = {
    AdminProtocol: {"self": HttpToolsProtocol},
    ServerProtocol: {
        "self": HttpToolsProtocol,
        "self.cycle": RequestResponseCycle,
        "response.cycle": RequestResponseCycle,
        "under_way[-1]": RequestResponseCycle,
        "self.flow": FlowControl,
        "self.server_state": ServerState,
    },
    ClientResponse: {
        "self._protocol": HttpToolsProtocol,
        "cycle": RequestResponseCycle,
        "self.cycle": RequestResponseCycle,
        "self._protocol.flow": FlowControl,
    },
}
# Members of our own that have the name of one of uvicorn's.
NAMESAKES = {
    ("held", "body"),
    ("self._incoming", "body"),
    ("problem", "body"),
    ("problem", "headers"),
    ("response", "cycle"),
    ("self", "cycle"),
    ("self._watch", "transport"),
}
# Of other modules: the name, and the only files that may use it.
UNPROMISED = {
    "huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE": {"backends.huggingface.child"},
    "huggingface_hub.file_download.http_get": {"backends.huggingface.child"},
    "huggingface_hub.utils._headers.build_hf_headers": {"backends.huggingface.child"},
    "uvicorn.protocols.http.httptools_impl.STATUS_LINE": {"app.relay.http.protocol", "app.relay.http.response"},
    "uvicorn.Server.capture_signals": {"app.relay.server", "app.supervisor.admin.app"},
}
OURS = {"app", "backends"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What has an underscore and is promised all the same: os._exit, and two methods of named tuples.
PROMISED = {"_exit", "_asdict", "_replace"}


def members(kind: type) -> set[str]:
    """What a class defines: its methods, and what it sets of itself. Not asyncio's callbacks, which are promised."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    set_by_itself = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"
    }
    names = {name for name in vars(kind) if not name.startswith("__")} | set_by_itself
    return names - set(dir(asyncio.Protocol))


def accesses(kind: type) -> set[tuple[str, str]]:
    """Every attribute in a class, as (receiver, name)."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    return {(ast.unparse(node.value), node.attr) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_what_is_used_of_uvicorns_classes_is_listed_and_the_list_holds_nothing_else() -> None:
    used: dict[type, set[str]] = {kind: set() for kind in UVICORN}
    for ours, receivers in RECEIVERS.items():
        for receiver, name in accesses(ours):
            theirs = receivers.get(receiver)
            if theirs is not None and name in members(theirs) - vars(ours).keys():
                used[theirs].add(name)

    assert used == UVICORN


def test_no_other_expression_leads_to_a_member_of_uvicorns_classes() -> None:
    theirs = {name for kind in UVICORN for name in members(kind)}
    elsewhere = {
        (receiver, name)
        for ours, receivers in RECEIVERS.items()
        for receiver, name in accesses(ours)
        if receiver not in receivers and name in theirs
    }

    assert elsewhere - {("super()", name) for name in OVERRIDDEN} == NAMESAKES


def test_what_is_overridden_of_uvicorns_protocol_is_listed_and_is_there() -> None:
    assert vars(ServerProtocol).keys() & members(HttpToolsProtocol) == OVERRIDDEN


def test_uvicorns_classes_are_used_in_these_files_only() -> None:
    files = {name_of(path) for path in FILES if any("uvicorn.protocols" in module for module in imports(path))}

    assert files == {kind.__module__ for kind in RECEIVERS}


def test_no_release_of_uvicorn_is_taken_that_was_not_tried() -> None:
    wanted = next(each for each in PROJECT["dependencies"] if each.startswith("uvicorn"))
    release = version("uvicorn").split(".")
    later = [f"{release[0]}.{int(release[1]) + 1}.0", f"{int(release[0]) + 1}.0.0"]

    assert version("uvicorn") in Requirement(wanted).specifier
    assert not any(each in Requirement(wanted).specifier for each in later)


@pytest.mark.parametrize("name", UNPROMISED)
def test_what_is_used_of_other_modules_is_there_and_stays_in_its_file(name: str) -> None:
    module, _, member = name.rpartition(".")
    holder = importlib.import_module(module) if module != "uvicorn.Server" else uvicorn.Server
    assert hasattr(holder, member)

    assert {name_of(path) for path in FILES if member in written(path)} == UNPROMISED[name]


def written(path: Path) -> set[str]:
    """Every name that stands in a file, in whatever role."""
    roles = ("id", "attr", "name")
    return {getattr(node, role, "") for node in ast.walk(ast.parse(path.read_text())) for role in roles}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PROMISED


OWN = ("self", "cls", "super()")


def test_nothing_private_is_imported_or_reached_into_but_what_is_listed() -> None:
    imported = {module for path in FILES for module in imports(path) if any(map(private, module.split(".")))}
    reached = {
        f"{name_of(path)}: {ast.unparse(node)}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and private(node.attr) and ast.unparse(node.value) not in OWN
    }

    modules = {name.rpartition(".")[0] for name in UNPROMISED}
    assert imported <= UNPROMISED.keys() | modules
    assert reached == set()


def test_no_class_of_ours_uses_what_a_class_of_others_keeps_to_itself() -> None:
    for path in FILES:
        for kind in classes(path):
            others = [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in OURS]
            kept = {name for base in others for name in vars(base) if private(name)}
            used = {name for receiver, name in accesses(kind) if receiver == "self"} & kept - vars(kind).keys()
            assert used <= UVICORN[HttpToolsProtocol], kind


def classes(path: Path) -> Iterator[type]:
    """Those that a file defines."""
    if path.name != "__main__.py":
        module = importlib.import_module(name_of(path))
        yield from (
            each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__
        )
