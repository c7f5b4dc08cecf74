"""The public listening socket."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from app.supervisor.listener import ListenError, listen, take_no_more, url


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::1", "[::1]", "::"])
def test_it_listens_where_it_is_told_and_says_where(host: str) -> None:
    with contextlib.closing(listen(host, 0)) as listener:
        address = url(listener)

        port = listener.getsockname()[1]
        name = "[::1]" if host.strip("[]") == "::1" else "127.0.0.1"
        assert address == f"http://{name}:{port}"
        with socket.create_connection((name.strip("[]"), port)):
            pass


def test_a_port_that_is_taken_is_named() -> None:
    with contextlib.closing(listen("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]

        with pytest.raises(ListenError, match=rf"127.0.0.1:{port} is in use by another program; .*--port"):
            listen("127.0.0.1", port)


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(ListenError, match=r"'192.0.2.1' is not an address of this machine; .*--host"):
        listen("192.0.2.1", 0)


def test_a_name_that_means_nothing_is_named() -> None:
    with pytest.raises(ListenError, match=r"'no\.such\.host\.invalid' is not an address"):
        listen("no.such.host.invalid", 0)


def test_the_socket_is_not_inherited_by_accident() -> None:
    with contextlib.closing(listen("127.0.0.1", 0)) as listener:
        assert not os.get_inheritable(listener.fileno())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_who_waits_to_be_accepted_is_kept_and_nobody_joins_them(host: str) -> None:
    with contextlib.closing(listen(host, 0)) as listener:
        address = listener.getsockname()[:2]
        waiting = [socket.create_connection(address) for _ in range(3)]

        take_no_more(listener)
        with pytest.raises(TimeoutError):
            socket.create_connection(address, timeout=0.2)
        for each in waiting:
            each.sendall(b"here")
        accepted = [listener.accept()[0] for _ in waiting]

        assert [each.recv(10) for each in accepted] == [b"here"] * 3
        with pytest.raises(BlockingIOError):
            listener.accept()
        for each in (*waiting, *accepted):
            each.close()
