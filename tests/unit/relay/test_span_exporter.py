"""app/relay/tracing/exporter.py: nobody waits for a collector, and one that is dead is told of once."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from app.log import set_up
from app.relay.tracing import exporter
from app.relay.tracing.collector import Delivery, TraceCollector
from app.relay.tracing.exporter import SpanExporter
from app.table import Tracing
from tests.fakes.trace_collector import FakeTraceCollector

PATIENCE_S = 20.0
OK = Delivery()
DEAD = Delivery("it is dead", may_retry=True)
REFUSED = Delivery("it answered 400")
SOON = 0.01


class Receiver:
    """Takes batches as the test says, and knows when something has changed."""

    def __init__(self) -> None:
        self.answer = OK
        self.taken: list[bytes] = []
        self.tries = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def send(self, pieces: list[bytes], timeout_s: float) -> Delivery:
        self.tries += 1
        self.may_answer.wait(PATIENCE_S)
        if self.answer is OK:
            self.taken += pieces
        return self.answer


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    out = io.StringIO()
    set_up("json", "info", out)
    yield out
    structlog.reset_defaults()


def logged(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.002)


def test_what_is_offered_comes_in_its_order(lines: io.StringIO) -> None:
    receiver = Receiver()
    spans = SpanExporter("c", receiver.send, SOON, 1)
    for number in range(100):
        spans.offer(b"%d" % number)
    until(lambda: len(receiver.taken) == 100)
    spans.close()

    assert receiver.taken == [b"%d" % number for number in range(100)]
    assert logged(lines) == []


def test_what_is_left_is_sent_at_the_end() -> None:
    receiver = Receiver()
    spans = SpanExporter("c", receiver.send, 600, 1)
    spans.offer(b"a")
    spans.offer(b"b")
    spans.close()

    assert receiver.taken == [b"a", b"b"]


def test_a_full_batch_does_not_wait_for_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "BATCH_BYTES", 10)
    receiver = Receiver()
    spans = SpanExporter("c", receiver.send, 600, 1)
    spans.offer(b"x" * 10)

    until(lambda: receiver.taken == [b"x" * 10])
    spans.close()


def test_a_collector_that_does_not_answer_holds_nobody_up(lines: io.StringIO) -> None:
    receiver = Receiver()
    receiver.may_answer.clear()
    spans = SpanExporter("c", receiver.send, SOON, 1)
    spans.offer(b"first")
    until(lambda: receiver.tries == 1)

    for _ in range(1000):  # would never end if it waited
        spans.offer(b"more")
    spans.close(wait_s=0.01)

    assert receiver.taken == []
    receiver.may_answer.set()


def test_a_dead_collector_is_told_of_once_and_gets_all_when_it_is_back(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "LONGEST_PAUSE_S", SOON)
    receiver = Receiver()
    receiver.answer = DEAD
    spans = SpanExporter("http://c:4318", receiver.send, SOON, 1)
    spans.offer(b"a")
    until(lambda: receiver.tries > 4)
    spans.offer(b"b")
    receiver.answer = OK
    until(lambda: receiver.taken == [b"a", b"b"])
    spans.close()

    told = [(line["event"], line["collector"], line.get("reason"), line.get("lost_requests")) for line in logged(lines)]
    assert told == [
        ("traces are not delivered", "http://c:4318", "it is dead", None),
        ("traces are delivered again", "http://c:4318", None, 0),
    ]


def test_what_a_collector_refuses_is_not_sent_again(lines: io.StringIO) -> None:
    receiver = Receiver()
    receiver.answer = REFUSED
    spans = SpanExporter("c", receiver.send, SOON, 1)
    spans.offer(b"bad")
    until(lambda: receiver.tries == 1)
    until(lambda: bool(logged(lines)))
    receiver.answer = OK
    spans.offer(b"good")
    until(lambda: receiver.taken == [b"good"])
    spans.close()

    assert [line.get("lost_requests") for line in logged(lines)] == [None, 1]


def test_while_none_is_taken_the_oldest_go(monkeypatch: pytest.MonkeyPatch, lines: io.StringIO) -> None:
    monkeypatch.setattr(exporter, "MAX_WAITING_BYTES", 30)
    monkeypatch.setattr(exporter, "LONGEST_PAUSE_S", SOON)
    receiver = Receiver()
    receiver.answer = DEAD
    spans = SpanExporter("c", receiver.send, SOON, 1)
    for number in range(10):
        spans.offer(b"%010d" % number)
    until(lambda: receiver.tries > 2)
    receiver.answer = OK
    until(lambda: len(receiver.taken) == 3)
    spans.close()

    assert [int(piece) for piece in receiver.taken] == [7, 8, 9]
    assert logged(lines)[-1]["lost_requests"] == 7


def test_a_batch_that_breaks_the_sender_does_not_end_it(lines: io.StringIO) -> None:
    taken: list[bytes] = []

    def send(pieces: list[bytes], _: float) -> Delivery:
        if b"bad" in pieces:
            raise ValueError("secret")
        taken.extend(pieces)
        return OK

    spans = SpanExporter("c", send, SOON, 1)
    spans.offer(b"bad")
    until(lambda: bool(logged(lines)))
    spans.offer(b"good")
    until(lambda: taken == [b"good"])
    spans.close()

    assert logged(lines)[0]["reason"] == "it cannot be sent (ValueError)"
    assert "secret" not in lines.getvalue()


# -- the way to it


def test_a_batch_goes_with_the_headers_that_are_configured() -> None:
    with FakeTraceCollector() as collector:
        settings = Tracing(f"{collector.url}/otlp/v1/traces", headers={"x-key": "secret"}, compression="gzip")

        assert TraceCollector(settings).send(b"", 5) == OK

    assert collector.paths == ["/otlp/v1/traces"]
    assert collector.headers[0]["x-key"] == "secret"
    assert collector.headers[0]["content-type"] == "application/x-protobuf"
    assert collector.headers[0]["content-encoding"] == "gzip"


@pytest.mark.parametrize(("status", "may_retry"), [(429, True), (503, True), (400, False), (404, False), (500, False)])
def test_a_collector_says_whether_it_will_take_it_later(status: int, may_retry: bool) -> None:
    with FakeTraceCollector() as collector:
        collector.status = status
        delivery = TraceCollector(Tracing(collector.url)).send(b"", 5)

    assert delivery == Delivery(f"it answered {status}", may_retry)


def test_one_that_is_not_there_is_told_in_words() -> None:
    with FakeTraceCollector() as collector:
        port = collector.port
    delivery = TraceCollector(Tracing(f"http://127.0.0.1:{port}/v1/traces")).send(b"", 5)

    assert delivery == Delivery("Connection refused", may_retry=True)


def test_one_that_is_silent_is_given_up_in_time() -> None:
    with FakeTraceCollector() as collector:
        collector.holds.set()
        delivery = TraceCollector(Tracing(collector.url)).send(b"", 0.05)

    assert delivery == Delivery("it did not answer in time", may_retry=True)


def test_a_certificate_that_is_not_there_is_told_too() -> None:
    delivery = TraceCollector(Tracing("https://127.0.0.1:1/v1/traces", certificate="/nowhere.pem")).send(b"", 5)

    assert delivery == Delivery("No such file or directory", may_retry=True)


@pytest.mark.parametrize(
    ("retry_after", "after_s"),
    [("7", 7.0), ("²", 0.0), ("9" * 500, 3600.0), ("-1", 0.0), ("1e9", 0.0), ("Fri, 27 Nov 2026 00:00:00 GMT", 0.0)],
)
def test_how_long_to_wait_is_what_a_collector_may_ask_for(retry_after: str, after_s: float) -> None:
    answer = f"HTTP/1.1 429 Later\r\nretry-after: {retry_after}\r\ncontent-length: 0\r\n\r\n"
    with byte_by_byte(answer.encode("latin-1"), 0.0) as url:
        assert TraceCollector(Tracing(url)).send(b"", 5) == Delivery("it answered 429", True, after_s)


def test_one_that_answers_byte_by_byte_is_given_up_in_time() -> None:
    with byte_by_byte(b"HTTP/1.1 200 OK\r\n" + b"x-more: yes\r\n" * 90, 0.05) as url:
        assert TraceCollector(Tracing(url)).send(b"", 0.3) == Delivery("it did not answer in time", may_retry=True)


def test_one_that_has_said_yes_has_it_whatever_else_it_says() -> None:
    with byte_by_byte(b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n" + b"." * 1000, 0.0) as url:
        assert TraceCollector(Tracing(url)).send(b"", 5) == OK


def test_a_header_that_no_network_can_carry_is_told() -> None:
    with FakeTraceCollector() as collector:
        delivery = TraceCollector(Tracing(collector.url, headers={"x": "a\nb"})).send(b"", 5)

    assert delivery == Delivery("its address or headers cannot be used (ValueError)")


@contextlib.contextmanager
def byte_by_byte(answer: bytes, pause_s: float) -> Iterator[str]:
    """The address of a server that answers one request with these bytes, and a pause after each, and then hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    is_over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            for place in range(len(answer)) if pause_s else ():
                connection.sendall(answer[place : place + 1])
                if is_over.wait(pause_s):
                    return
            if not pause_s:
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/traces"
    finally:
        is_over.set()
        listener.close()
        thread.join(PATIENCE_S)


def test_its_name_has_no_secret() -> None:
    collector = TraceCollector(Tracing("https://user:password@c:4318/v1/traces", headers={"authorization": "secret"}))

    assert repr(collector) == "<TraceCollector https://c:4318/v1/traces>"
    assert "secret" not in repr(Tracing("http://c", headers={"authorization": "secret"}))
