"""Usage records on their way from a relay to the supervisor: what was written is there, whatever becomes of either."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from app.usage import segments
from app.usage.record import UsageRecord, decoded, encoded
from app.usage.segment_reader import SegmentReader
from app.usage.segments import HEAD_BYTES, SEGMENT_BYTES, SegmentWriter
from tests import ROOT
from tests.rigs.small_disk import small_disk

T = TypeVar("T")
NUMBER = 0x1234
RECORD = (
    *(1000.0, "office", "office", None, "chat", "gpu0", None, "chat", "/v1/chat/completions"),
    *(12, 34, 0, 0, False, 0.0, 0.5, None, 0.0, 0.0, 1, "ok", 200),
)


def record(request_id: str, *, is_stream: bool = False) -> bytes:
    return encoded((*RECORD, request_id, is_stream))


def taken(reader: SegmentReader) -> list[str]:
    """The ids that clients gave, of all that is there; released."""
    ids: list[str] = []
    while True:
        batch = reader.take()
        reader.release(batch)
        ids += [each.request_id for _, each in batch.records]
        if not batch.records:
            return ids


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[SegmentReader]:
    reader = SegmentReader(tmp_path / "usage")
    yield reader
    reader.close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SegmentWriter]:
    writer = SegmentWriter(tmp_path / "usage", NUMBER)
    yield writer
    writer.close()


def test_a_record_is_read_as_it_was_written_and_numbered_by_its_writer(
    writer: SegmentWriter, reader: SegmentReader
) -> None:
    writer.write(record("a"))
    writer.write(record("b", is_stream=True))

    batch = reader.take()

    assert batch.records == [
        ("0000000000001234-0", UsageRecord(*RECORD, "a", False)),
        ("0000000000001234-1", UsageRecord(*RECORD, "b", True)),
    ]


def test_what_is_not_released_is_given_again_with_the_same_ids(writer: SegmentWriter, reader: SegmentReader) -> None:
    writer.write(record("a"))
    first = reader.take()
    writer.write(record("b"))

    second = reader.take()
    reader.release(first)
    third = reader.take()

    assert second.records[:1] == first.records
    assert [name for name, _ in third.records] == ["0000000000001234-1"]


def test_a_batch_has_as_many_as_were_asked_for_and_the_rest_comes_next(
    writer: SegmentWriter, reader: SegmentReader
) -> None:
    for number in range(5):
        writer.write(record(str(number)))

    first = reader.take(3)
    reader.release(first)

    assert len(first.records) == 3
    assert taken(reader) == ["3", "4"]


def test_a_segment_that_is_written_to_stays_and_one_that_is_left_is_removed(tmp_path: Path) -> None:
    writer, reader = SegmentWriter(tmp_path / "usage", NUMBER), SegmentReader(tmp_path / "usage")
    writer.write(record("a"))
    assert taken(reader) == ["a"]
    assert len(list((tmp_path / "usage").iterdir())) == 1

    writer.write(record("b"))
    writer.close()

    assert taken(reader) == ["b"]
    assert list((tmp_path / "usage").iterdir()) == []


@pytest.mark.parametrize("has_executor", [False, True])
def test_records_go_on_in_the_next_segment_in_their_order(tmp_path: Path, has_executor: bool) -> None:
    executor = ThreadPoolExecutor(1) if has_executor else None
    writer = SegmentWriter(tmp_path / "usage", NUMBER, executor)
    count = 3 * SEGMENT_BYTES // len(record("000000"))
    reader = SegmentReader(tmp_path / "usage")

    for number in range(count):
        writer.write(record(f"{number:06d}"))
    batch = reader.take(count + 1)
    writer.close()

    assert [each.request_id for _, each in batch.records] == [f"{number:06d}" for number in range(count)]
    assert [name for name, _ in batch.records] == [f"0000000000001234-{number}" for number in range(count)]
    taken(reader)
    assert list((tmp_path / "usage").iterdir()) == []


class _AtOnce(Executor):
    """Calls whatever it is given."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **more: Any) -> Future[T]:
        """What came of it."""
        done: Future[T] = Future()
        done.set_result(fn(*args, **more))
        return done


def test_a_segment_that_is_begun_while_it_is_read_has_its_own_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "usage"
    writer, written, read = SegmentWriter(folder, NUMBER, _AtOnce(), segment_bytes=1024), 0, os.pread

    def write_until_there_are(segments: int) -> None:
        nonlocal written
        while len(list(folder.glob("*.segment"))) < segments:
            writer.write(record(f"{written}"))
            written += 1
            writer.settle()

    def pread(descriptor: int, size: int, at: int) -> bytes:
        data = read(descriptor, size, at)
        if Path(f"/proc/self/fd/{descriptor}").readlink().name.endswith("-000002.segment"):
            write_until_there_are(3)
        return data

    write_until_there_are(2)
    reader = SegmentReader(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", pread)
        batches = [reader.take()]
        reader.release(batches[0])
    writer.close()
    batches.append(reader.take())
    reader.close()

    numbers = [number for batch in batches for number, _ in batch.records]
    assert sorted(set(numbers)) == sorted(numbers)
    assert len(numbers) == written


def test_what_a_killed_writer_wrote_is_there_and_its_file_is_removed(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from app.usage.segments import SegmentWriter\n"
        "from tests.unit.usage.test_segments import record\n"
        "writer, number = SegmentWriter(Path(sys.argv[1]), 7), 0\n"
        "while True:\n"
        "    writer.write(record(str(number))); print(number, flush=True); number += 1\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "usage")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for _ in range(20_000):  # more than fit into one segment
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        told = [line for line in child.stdout if line.endswith("\n")]

    ids = taken(SegmentReader(tmp_path / "usage"))

    assert len(ids) - (20_000 + len(told)) in (0, 1)  # it may have been killed before it could tell of the last one
    assert ids == [str(number) for number in range(len(ids))]
    assert list((tmp_path / "usage").iterdir()) == []


def test_beyond_the_most_segments_records_wait_in_memory_and_are_not_lost(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "usage", NUMBER, most_segments=2)
    count = 4 * SEGMENT_BYTES // len(record("000000"))
    reader = SegmentReader(tmp_path / "usage")

    for number in range(count):
        writer.write(record(f"{number:06d}"))
    files = len(list((tmp_path / "usage").iterdir()))
    ids: list[str] = []
    while more := taken(reader):
        ids += more
        writer.settle()
    writer.close()

    assert files == 2
    assert ids == [f"{number:06d}" for number in range(count)]
    assert writer.lost == 0


def test_what_no_memory_is_for_is_lost_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MOST_WAITING_BYTES", 10 * len(record("000000")))
    writer = SegmentWriter(tmp_path / "usage", NUMBER, most_segments=1)
    reader, count = SegmentReader(tmp_path / "usage"), 0

    while not writer.lost:
        writer.write(record(f"{count:06d}"))
        count += 1
    writer.write(record("lost as well"))
    ids = taken(reader)
    writer.settle()
    writer.write(record("later"))
    writer.close()
    batch = reader.take()

    assert [*ids, *(each.request_id for _, each in batch.records)] == [f"{n:06d}" for n in range(count - 1)] + ["later"]
    assert batch.lost == {NUMBER: 2}


def test_on_a_full_disk_records_wait_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        folder = disk.folder / "usage"
        writer, reader = SegmentWriter(folder, NUMBER, segment_bytes=64 * 1024), SegmentReader(folder)
        disk.fill()

        for number in range(2000):
            writer.write(record(f"{number:06d}"))
        there = len(list(folder.iterdir()))
        disk.free()
        writer.settle()
        writer.close()

        assert there == 1
        assert taken(reader) == [f"{number:06d}" for number in range(2000)]


def test_a_folder_that_cannot_be_made_costs_no_request(tmp_path: Path) -> None:
    (tmp_path / "usage").write_text("in the way")
    writer = SegmentWriter(tmp_path / "usage", NUMBER)

    writer.write(record("a"))
    (tmp_path / "usage").unlink()
    writer.settle()
    writer.close()

    assert taken(SegmentReader(tmp_path / "usage")) == ["a"]


def test_a_disk_that_hangs_stops_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SLOW_S", 0.001)
    hangs = threading.Event()
    executor = ThreadPoolExecutor(1)
    writer = SegmentWriter(tmp_path / "usage", NUMBER, executor)
    executor.submit(hangs.wait, 20)
    count = 2 * SEGMENT_BYTES // len(record("000000"))

    for number in range(count):
        writer.write(record(f"{number:06d}"))
    waits = len(taken(SegmentReader(tmp_path / "usage"))) < count
    hangs.set()
    executor.submit(int).result()
    writer.settle()
    writer.close()

    assert waits
    assert taken(SegmentReader(tmp_path / "usage"))[-1] == f"{count - 1:06d}"


def damage(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


@pytest.mark.parametrize(
    ("place", "data", "left"),
    [
        (HEAD_BYTES, bytes(4096 - HEAD_BYTES), []),  # a page that the disk did not get
        (HEAD_BYTES, (1 << 40).to_bytes(8, "little"), []),
        (HEAD_BYTES + 8, b"\xc1", ["b"]),
        (0, b"somebody", ["a", "b"]),
    ],
)
def test_a_segment_that_is_damaged_is_put_aside_when_what_is_good_of_it_was_read(
    tmp_path: Path, place: int, data: bytes, left: list[str]
) -> None:
    folder = tmp_path / "usage"
    writer, reader = SegmentWriter(folder, NUMBER), SegmentReader(folder)
    writer.write(record("a"))
    writer.write(record("b"))
    for _ in range(40):
        writer.write(record("c"))
    writer.close()
    (path,) = folder.iterdir()
    damage(path, place, data)

    ids = taken(reader)

    assert [each for each in ids if each != "c"] == left
    assert [each.suffix for each in folder.iterdir()] == [".damaged"]
    assert reader.damaged == 1


@pytest.mark.parametrize(("member", "value"), [(0, 1e300), (0, float("nan")), (14, float("nan")), (15, float("inf"))])
def test_a_record_with_a_number_that_no_store_takes_is_damage(member: int, value: float) -> None:
    members = [*RECORD, "r", False]
    members[member] = value

    with pytest.raises(ValueError, match="no usage record"):
        decoded(encoded(tuple(members)))


def test_of_damaged_segments_few_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "usage"
    for number in range(12):
        writer = SegmentWriter(folder, number + 1)
        writer.write(record("a"))
        writer.close()
    for path in folder.iterdir():
        damage(path, 0, b"somebody")

    taken(SegmentReader(folder))

    assert len(list(folder.iterdir())) == 8


def test_what_a_killed_writer_had_not_finished_is_swept(tmp_path: Path) -> None:
    folder = tmp_path / "usage"
    folder.mkdir()
    (folder / "0000000000000007-000001.new").write_bytes(bytes(100))

    SegmentReader(folder).sweep()

    assert list(folder.iterdir()) == []


def test_without_a_folder_there_is_nothing(tmp_path: Path) -> None:
    reader = SegmentReader(tmp_path / "usage")

    reader.sweep()

    assert reader.take().records == []


def test_a_folder_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "usage").write_text("in the way")

    with pytest.raises(OSError, match=os.strerror(errno.ENOTDIR)):
        SegmentReader(tmp_path / "usage").take()
