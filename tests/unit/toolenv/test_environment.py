"""Tool environments: real ones, of small packages from an index in the test's folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from backends.toolenv import build, environment, tools
from backends.toolenv.environment import Toolbox, clean, tools_folder
from backends.toolenv.failures import ToolError, Unavailable, pip_failure
from backends.toolenv.tools import Choice, Recipe
from tests import ROOT
from tests.rigs.small_disk import WORDS, small_disk
from tests.unit.house.test_install import wheel

PATIENCE_S = 60.0
RECIPE = Recipe("small", "a small tool", ("small",), "import first", 1, 30)


class House:
    """A folder with an index, lock files and tool environments."""

    def __init__(self, folder: Path) -> None:
        self.index, self.locks, self.tools = folder / "index", folder / "locks", folder / "tools"
        self.said: list[str] = []
        self.asked: list[str] = []
        self.agrees = False
        for each in (self.index, self.locks):
            each.mkdir()
        self.lock("small", first=self.package("first"))

    def package(self, name: str, version: str = "1.0") -> str:
        return f"{version} {wheel(self.index, name, version)}"

    def lock(self, name: str, **packages: str) -> None:
        lines = [
            f"{package}=={version} \\\n    --hash=sha256:{digest}\n"
            for package, (version, digest) in ((each, known.split()) for each, known in packages.items())
        ]
        (self.locks / f"{name}.lock").write_text("".join(lines))

    def make(self, recipe: Recipe = RECIPE) -> Path:
        return build.make(self.tools, recipe, self.said.append, self._agree)

    def _agree(self, question: str) -> bool:
        self.asked.append(question)
        return self.agrees

    def left(self) -> list[str]:
        """What is in the folder, locks aside."""
        return sorted(path.name for path in self.tools.iterdir() if not path.name.startswith("."))


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    made = House(tmp_path)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.index))
    monkeypatch.setattr(tools, "LOCKS", made.locks)
    monkeypatch.setattr(build, "LOCKS", made.locks)
    monkeypatch.setattr(environment, "TOOLS", {"small": RECIPE})
    return made


def test_it_is_made_once_and_again_when_a_lock_file_changes(house: House) -> None:
    first = house.make()
    house.said.clear()

    again = house.make()
    told = list(house.said)
    house.lock("small", first=house.package("first", "2.0"))
    other = house.make()

    assert (first, told) == (again, [])
    assert other != first
    assert [path.name for path in other.glob("lib/python3*/site-packages/first*.dist-info")] == ["first-2.0.dist-info"]
    assert "small" in house.said[0]
    assert house.left() == sorted([first.name, other.name])


def test_only_what_the_lock_file_names_is_installed(house: House) -> None:
    """Whatever it asks for: the lock is complete, so that nothing is resolved."""
    digest = wheel(house.index, "second", "1.0", ["third"])
    wheel(house.index, "third", "1.0")
    house.lock("small", first=house.package("first"), second=f"1.0 {digest}")

    made = house.make()

    installed = {path.name for path in made.glob("lib/python3*/site-packages/*.dist-info")}
    assert {name for name in installed if not name.startswith(("pip-", "setuptools-"))} == {
        "first-1.0.dist-info",
        "second-1.0.dist-info",
    }


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda house: house.lock("small", nothing="1.0 " + "0" * 64),
            "the package index has no nothing==1.0 for Python",
        ),
        (lambda house: house.lock("small", first="1.0 " + "0" * 64), "the package index has another file for first"),
    ],
    ids=["not there", "another file"],
)
def test_what_pip_does_not_find_is_one_sentence_and_leaves_nothing(
    house: House, spoil: Callable[[House], None], sentence: str
) -> None:
    spoil(house)

    with pytest.raises(Unavailable) as raised:
        house.make()

    assert sentence in str(raised.value)
    assert str(raised.value).startswith("The tool environment 'small' (a small tool) was not made: ")
    assert house.left() == []


def test_what_does_not_run_is_not_trusted(house: House) -> None:
    broken = Recipe("small", "a small tool", ("small",), "import first, no_such_module", 1, 30)

    with pytest.raises(ToolError, match=r"does not work here: ModuleNotFoundError: No module named 'no_such_module'"):
        house.make(broken)

    assert house.left() == []


def choosing(*choices: Choice) -> Recipe:
    return Recipe("small", "a small tool", ("small",), "import first, second", 1, 30, choices)


def test_what_is_not_to_be_had_gives_way_to_the_next_choice_once_its_size_is_agreed_to(house: House) -> None:
    house.lock("best", second="9.0 " + "0" * 64)
    house.lock("large", second=house.package("second"))
    recipe = choosing(Choice("best", "the best", 1, 1), Choice("large", "the large one", 3000, 100))

    with pytest.raises(ToolError, match=r"3.0 GB to download.*was not agreed to"):
        house.make(recipe)
    refused = house.left()
    house.agrees = True
    made = house.make(recipe)

    assert refused == []
    assert build.is_whole(made)
    assert house.asked[-1].startswith("the large one: about 3.0 GB to download, 130 MB on the disk")


def test_of_another_system_is_never_tried(house: House) -> None:
    house.lock("large", second=house.package("second"))
    recipe = choosing(Choice("elsewhere", "for another system", 1, 1, "plan9"), Choice("large", "here", 1, 1))
    (house.locks / "elsewhere.lock").write_text("")

    assert build.is_whole(house.make(recipe))


KILLED = """
import sys
from pathlib import Path
from backends.toolenv import build, tools
from tests.unit.toolenv.test_environment import RECIPE
tools.LOCKS = build.LOCKS = Path(sys.argv[1])
print(build.make(Path(sys.argv[2]), RECIPE, print, bool), flush=True)
"""


def command(house: House) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", KILLED, str(house.locks), str(house.tools)]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.005)


def processes_in(folder: Path) -> list[int]:
    text = os.fsencode(folder)
    pids = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in entry.read_bytes() and int(entry.parent.name) != os.getpid():
                pids.append(int(entry.parent.name))
        except OSError:
            continue
    return pids


@pytest.mark.parametrize("part", ["pyvenv.cfg", "tmp"])
def test_one_that_was_killed_in_the_middle_is_begun_anew(house: House, part: str) -> None:
    killed = command(house)
    wait_for(lambda: any(house.tools.glob(f"*.making/{part}")))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    wait_for(lambda: processes_in(house.tools) == [])
    half = house.left()

    made = house.make()

    assert [name.endswith(".making") for name in half] == [True]
    assert house.left() == [made.name]
    assert subprocess.run([made / "bin/python", "-I", "-c", "import first"], check=False).returncode == 0


def test_two_commands_make_it_once(house: House) -> None:
    both = [command(house), command(house)]

    said = [each.communicate(timeout=PATIENCE_S)[0] for each in both]

    assert [each.returncode for each in both] == [0, 0]
    assert sorted("Making" in each for each in said) == [False, True]
    assert said[0].splitlines()[-1] == said[1].splitlines()[-1]


def test_one_whose_interpreter_has_gone_is_made_anew(house: House) -> None:
    made = house.make()
    (made / "bin/python").unlink()
    (made / "bin/python").symlink_to("/no/such/python")

    assert build.is_whole(house.make())
    assert house.left() == [made.name]


def test_too_little_room_is_said_before_anything_is_done(house: House) -> None:
    large = Recipe("small", "a small tool", ("small",), "import first", 1, 10_000_000_000)

    with pytest.raises(ToolError, match=r"it needs 10000000.0 GB of free space in .*tools, and there are [\d.]+ .B\.$"):
        house.make(large)

    assert house.left() == []


def test_a_disk_that_fills_up_is_one_sentence_and_nothing_is_left(house: House, tmp_path: Path) -> None:
    tiny = Recipe("small", "a small tool", ("small",), "import first", 0, 0)
    with small_disk(tmp_path / "disk") as disk:
        house.tools = disk.folder / "tools"
        house.tools.mkdir()
        disk.fill()

        with pytest.raises(ToolError) as raised:
            house.make(tiny)
        disk.free()

        assert any(word in str(raised.value) for word in (*WORDS, "the disk is full"))
        assert "\n" not in str(raised.value)
        assert house.left() == []


def test_a_folder_that_cannot_be_one_is_said(house: House, tmp_path: Path) -> None:
    house.tools = tmp_path / "file" / "tools"
    (tmp_path / "file").write_text("")

    with pytest.raises(ToolError, match=r"^The tool environment 'small' was not made: .*file.*: Not a directory\.$"):
        house.make()


def test_pips_own_settings_do_not_lead_it_astray(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "1")

    assert build.is_whole(house.make())
    assert not (tmp_path / "elsewhere").exists()


def test_clean_removes_what_is_ours_whole_or_not_and_nothing_else(house: House) -> None:
    made = house.make()
    (house.tools / f"small-{'0' * 12}.making").mkdir()
    (house.tools / "small-mine").mkdir()
    (house.tools / "letters").write_text("mine")
    toolbox = Toolbox(house.tools, house.said.append, lambda _: False)

    dry = clean(house.tools, is_dry=True)
    kept = made.exists()
    done = clean(house.tools)

    assert dry.freed_bytes == done.freed_bytes > 100
    assert (kept, done.in_use) == (True, {})
    assert done.names == (f"small-{'0' * 12}.making", made.name) or made.name in done.names
    assert sorted(path.name for path in house.tools.iterdir()) == ["letters", "small-mine"]
    assert toolbox.python("small") == made / "bin/python"


def test_clean_leaves_what_a_process_uses(house: House) -> None:
    made = house.make()
    with subprocess.Popen([made / "bin/python", "-c", "input()"], stdin=subprocess.PIPE) as user:
        wait_for(lambda: user.pid in processes_in(made))
        busy = clean(house.tools)
        assert user.stdin is not None
        user.stdin.close()
    after = clean(house.tools)

    assert (busy.names, dict(busy.in_use)) == ((), {made.name: user.pid})
    assert after.names == (made.name,)


def test_clean_where_nothing_is_does_nothing(house: House) -> None:
    done = clean(house.tools)

    assert (done.names, done.freed_bytes) == ((), 0)
    assert not house.tools.exists()


def test_clean_says_when_one_is_being_made(house: House) -> None:
    house.tools.mkdir()

    with (
        build.held(house.tools, "small", house.said.append),
        pytest.raises(ToolError, match="'small' is being made by another command"),
    ):
        clean(house.tools)


def test_the_folder_is_the_state_folders_unless_it_is_named(tmp_path: Path) -> None:
    assert tools_folder({}, tmp_path) == tmp_path / "tools"
    assert tools_folder({"MODELPORT_TOOLS": ""}, tmp_path) == tmp_path / "tools"
    assert tools_folder({"MODELPORT_TOOLS": "/t"}, tmp_path) == Path("/t")


REFUSED = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(…)': /simple/torch/"


@pytest.mark.parametrize(
    ("printed", "sentence"),
    [
        ([REFUSED, "ERROR: No matching distribution found for torch==2"], "the package index cannot be reached: check"),
        (["ERROR: No matching distribution found for torch==2"], "the package index has no torch==2 for Python 3 on X"),
        (
            ["ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"],
            "the disk is full",
        ),
        (["ERROR: odd", "more"], "pip says: odd"),
        (["ERROR: 404 for https://me:pass@index/simple/"], "pip says: 404 for https://index/simple/"),
        ([], "pip says: exit code 2"),
    ],
)
def test_why_pip_has_failed_is_one_sentence(printed: Sequence[str], sentence: str) -> None:
    assert str(pip_failure(printed, 2, "Python 3 on X")).startswith(sentence)


def python_without(folder: Path, *modules: str) -> Path:
    """This interpreter, which fails when it is to run one of these modules."""
    bare = folder / "python"
    tests = "".join(f'*" -m {module} "*) echo "No module named {module}"; exit 1;;\n' for module in modules)
    bare.write_text(f'#!/bin/sh\ncase " $* " in\n{tests}esac\nexec {sys.executable} "$@"\n')
    bare.chmod(0o755)
    return bare


def test_without_a_pip_here_the_environment_gets_one_of_its_own(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = str(python_without(tmp_path, "pip"))
    monkeypatch.setattr(build, "have_pip", lambda: [bare])

    made = house.make()

    assert [path.name for path in made.glob("bin/pip3")] == ["pip3"]


def test_a_base_without_venv_is_said(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "base_python", lambda: str(python_without(tmp_path, "venv")))

    with pytest.raises(ToolError, match="cannot make a virtual environment: No module named venv"):
        house.make()

    assert house.left() == []
