"""The usage journal: what it has taken is there after any end, and it stays as small as what it holds."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.supervisor.team.usage.journal import DAMAGED, JournalFull, UsageJournal
from tests import ROOT
from tests.rigs.small_disk import small_disk
from tests.unit.store.test_usage import made, numbered

MOST = 64 << 20


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[UsageJournal]:
    journal = UsageJournal(tmp_path / "usage" / "journal.db", MOST)
    yield journal
    journal.close()


def fill(journal: UsageJournal) -> None:
    for turn in range(200):
        journal.add(numbered([made()] * 500, str(turn)), {})


def opened_and_read(journal: UsageJournal) -> None:
    journal.open()
    journal.first(10)


def test_records_come_back_in_their_order_until_they_are_removed(journal: UsageJournal) -> None:
    records = numbered([made(), made(key=""), made(first_token_s=0.5)])
    journal.add(records, {})

    assert journal.first(2) == records[:2]
    journal.remove(["w-0", "w-1"])

    assert journal.first(9) == records[2:]
    assert journal.count == 1


def test_it_knows_what_each_key_has_in_it(journal: UsageJournal) -> None:
    journal.add(numbered([made(), made(), made(key="k-2", money=1.0)]), {})

    assert journal.by_key() == {"k-1": (220, 0.5), "k-2": (110, 1.0)}


def test_a_record_is_taken_once(journal: UsageJournal) -> None:
    journal.add(numbered([made()]), {})
    journal.add(numbered([made(), made()]), {})

    assert journal.count == 2
    assert [id for id, _ in journal.first(9)] == ["w-0", "w-1"]


def test_how_far_segments_were_read_is_kept_with_the_records(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = UsageJournal(path, MOST)
    assert journal.open() == {}
    journal.add(numbered([made()]), {"one": (100, 3), "two": (200, 4)})
    journal.add([], {"one": (300, 5)})
    journal.forget(["two"])
    journal.close()

    again = UsageJournal(path, MOST)

    assert again.open() == {"one": (300, 5)}
    assert again.count == 1
    again.close()


def test_what_it_has_taken_is_there_when_its_process_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from app.supervisor.team.usage.journal import UsageJournal\n"
        "from tests.unit.store.test_usage import made, numbered\n"
        "journal, turn = UsageJournal(Path(sys.argv[1]), 1 << 30), 0\n"
        "while True:\n"
        "    journal.add(numbered([made()] * 10, str(turn)), {}); print(turn, flush=True); turn += 1\n"
    )
    path = tmp_path / "journal.db"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for _ in range(20):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        turns = 20 + sum(line.endswith("\n") for line in child.stdout)

    journal = UsageJournal(path, MOST)
    journal.open()

    assert journal.count in (10 * turns, 10 * turns + 10)
    journal.close()


def test_it_takes_no_more_than_it_may_and_goes_on_once_there_is_room(tmp_path: Path) -> None:
    journal = UsageJournal(tmp_path / "journal.db", 1 << 20)
    turn = 0
    while journal.count < 100_000:
        try:
            journal.add(numbered([made()] * 500, str(turn)), {})
        except JournalFull as exc:
            said = str(exc)
            break
        turn += 1
    count = journal.count

    journal.remove([id for id, _ in journal.first(count)])
    journal.add(numbered([made()]), {})

    assert "1 MB" in said
    assert count == 500 * turn > 1000
    assert journal.count == 1
    journal.close()


def test_its_file_is_small_again_once_it_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = UsageJournal(path, 1 << 30)
    for turn in range(60):
        journal.add(numbered([made()] * 1000, str(turn)), {})
    large = path.stat().st_size

    while records := journal.first(5000):
        journal.remove([id for id, _ in records])
    journal.close()

    assert large > 8_000_000
    assert path.stat().st_size < 5_000_000


def test_on_a_full_disk_it_says_so_and_nothing_is_half_taken(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        journal = UsageJournal(disk.folder / "usage" / "journal.db", MOST)
        journal.add(numbered([made()]), {})
        disk.fill()

        with pytest.raises((JournalFull, OSError)):
            fill(journal)
        disk.free()
        count = len(journal.first(100_000))
        journal.add(numbered([made()], "later"), {})

        assert count % 500 == 1
        assert journal.count == count + 1
        journal.close()


@pytest.mark.parametrize("place", [0, 4096])
def test_a_damaged_file_is_put_aside_and_a_new_one_begun(tmp_path: Path, place: int) -> None:
    path = tmp_path / "journal.db"
    journal = UsageJournal(path, MOST)
    journal.add(numbered([made()] * 3), {})
    journal.close()
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 8192)

    again = UsageJournal(path, MOST)
    with pytest.raises(OSError, match="damaged"):
        opened_and_read(again)
    again.add(numbered([made()], "new"), {})

    assert [id for id, _ in again.first(10)] == ["new-0"]
    assert [each.name for each in tmp_path.glob(f"*{DAMAGED}")]
    assert again.lost >= 1
    again.close()


def test_a_record_that_cannot_be_read_is_damage(journal: UsageJournal, tmp_path: Path) -> None:
    journal.add(numbered([made()]), {})
    with sqlite3.connect(tmp_path / "usage" / "journal.db") as connection:
        connection.execute("UPDATE records SET record = x'c1'")

    with pytest.raises(OSError, match="damaged"):
        journal.first(1)

    assert (journal.lost, journal.count) == (1, 0)


def test_a_place_that_is_no_folder_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "usage").write_text("in the way")

    with pytest.raises(OSError, match="usage"):
        UsageJournal(tmp_path / "usage" / "journal.db", MOST).open()
