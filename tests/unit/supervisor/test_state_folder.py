"""The state folder, with real locks and a real second process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from app.supervisor.state_folder import StateError, StateFolder, bind_private, check_free, is_held, prepare

HOLDER = """
import signal, sys
from pathlib import Path
from app.supervisor.state_folder import StateFolder
with StateFolder(Path(sys.argv[1])):
    print("held", flush=True)
    signal.pause()
"""


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_made_private(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "deep" / "state") as state:
        assert _mode(state.path) == 0o700
        assert _mode(state.path / "lock") == 0o600


def test_an_empty_folder_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir(mode=0o755)

    with StateFolder(path):
        assert _mode(path) == 0o700


def test_a_folder_with_other_things_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.mkdir()
    path.chmod(0o755)
    (path / "lock").write_text("somebody else's")

    with pytest.raises(StateError, match=r"home holds other files, .* choose a new or an empty one with --state"):
        StateFolder(path).__enter__()

    assert _mode(path) == 0o755
    assert [file.name for file in path.iterdir()] == ["lock"]


def test_a_folder_of_everybody_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tmp"
    path.mkdir()
    path.chmod(0o1777)

    with pytest.raises(StateError, match=r"tmp is shared by several users; choose a folder in it with --state"):
        StateFolder(path).__enter__()
    with pytest.raises(StateError, match="--state"):
        StateFolder(Path("/tmp")).__enter__()

    assert _mode(path) == 0o1777


def test_a_state_folder_that_was_opened_to_others_is_refused_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with StateFolder(path):
        pass
    path.chmod(0o770)

    with pytest.raises(StateError, match=r"may enter the state folder .*`chmod 700 .*state`, or choose another"):
        StateFolder(path).__enter__()

    path.chmod(0o700)
    with StateFolder(path):
        pass


def test_a_second_supervisor_is_told_who_has_the_folder(tmp_path: Path) -> None:
    with StateFolder(tmp_path), pytest.raises(StateError, match=rf"already runs on .* \(process {os.getpid()}\)"):
        StateFolder(tmp_path).__enter__()


def test_the_folder_is_free_again_after_its_holder(tmp_path: Path) -> None:
    with StateFolder(tmp_path) as state:
        bind_private(state.control_socket).close()

    with StateFolder(tmp_path):
        assert not state.control_socket.exists()


def test_a_holder_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StateError, match=f"process {holder.pid}"):
            StateFolder(tmp_path).__enter__()
        holder.send_signal(signal.SIGKILL)

    with StateFolder(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_what_is_no_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")

    with pytest.raises(StateError, match=r"file cannot be used: .*--state"):
        StateFolder(path).__enter__()


def test_leftovers_of_an_earlier_life_are_swept(tmp_path: Path) -> None:
    with StateFolder(tmp_path) as state:
        with contextlib.closing(bind_private(state.control_socket)):
            pass
        (state.path / "metrics").mkdir()
        (state.path / "metrics" / "counter_1.db").write_bytes(b"old")

        state.sweep()

        assert not state.control_socket.exists()
        assert list((state.path / "metrics").iterdir()) == []


def test_what_is_no_counter_is_not_swept(tmp_path: Path) -> None:
    with StateFolder(tmp_path) as state:
        (state.path / "metrics").mkdir()
        (state.path / "metrics" / "thesis.txt").write_text("years")
        (state.path / "metrics" / "counter_1.db").write_bytes(b"old")

        state.sweep()

        assert [file.name for file in (state.path / "metrics").iterdir()] == ["thesis.txt"]


def test_its_removal_is_noticed(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "state") as state, contextlib.closing(bind_private(state.relay_socket)):
        state.check()
        shutil.rmtree(state.path)

        with pytest.raises(StateError, match=r"relay\.sock has been removed while the gateway ran"):
            state.check()


def test_only_its_user_can_open_a_private_socket(tmp_path: Path) -> None:
    with contextlib.closing(bind_private(tmp_path / "a.sock")):
        assert _mode(tmp_path / "a.sock") == 0o600


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    with contextlib.closing(bind_private(tmp_path / "a.sock")):
        pass

    with contextlib.closing(bind_private(tmp_path / "a.sock")) as listener:
        listener.listen()


def test_the_identity_is_that_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)

    assert StateFolder(tmp_path).id == StateFolder(tmp_path / "link").id
    assert StateFolder(tmp_path).id != StateFolder(tmp_path / "other").id


def test_a_folder_that_a_verb_has_filled_can_still_become_a_supervisors(tmp_path: Path) -> None:
    path = tmp_path / "state"

    prepare(path)
    (path / "served").mkdir()

    with StateFolder(path) as state:
        assert is_held(path)
        prepare(path)
        assert (state.path / "lock").read_text() == f"{os.getpid()}\n"
    assert not is_held(path)
    assert not is_held(tmp_path / "nowhere")


UNLOCKED = """
import errno, fcntl, os, sys
from pathlib import Path
from app.supervisor.state_folder import StateError, StateFolder
def flock(descriptor, operation):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = flock
try:
    StateFolder(Path(sys.argv[1])).__enter__()
except StateError as exc:
    print(exc)
"""


def test_a_file_system_without_locks_is_named(tmp_path: Path) -> None:
    """As NFS is where nobody runs its lock service."""
    said = subprocess.run(
        [sys.executable, "-c", UNLOCKED, str(tmp_path / "state")], capture_output=True, text=True, check=True
    ).stdout

    assert said.startswith(f"the state folder {tmp_path}/state is on a file system that gives no locks (No locks avail")
    assert "choose one on a local disk with --state" in said


def test_whether_a_gateway_runs_on_a_folder_is_told_without_taking_it(tmp_path: Path) -> None:
    ours = rf"^a gateway already runs on .* \(process {os.getpid()}\)"
    with StateFolder(tmp_path), pytest.raises(StateError, match=ours):
        check_free(tmp_path)

    check_free(tmp_path)
    assert not is_held(tmp_path)
