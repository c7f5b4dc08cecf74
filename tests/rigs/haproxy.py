"""A real HAProxy before several gateways, with the file that users are given (docker/haproxy/haproxy.cfg)."""

from __future__ import annotations

import csv
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests import ROOT
from tests.rigs.program import Program
from tests.rigs.serving import until

CONFIG: Final = ROOT / "docker" / "haproxy" / "haproxy.cfg"
BACKEND: Final = "gateways"


class HaproxyServer(Program):
    """It listens on `url`, and has the gateways at `urls` behind it, as `gateway-1` and so on."""

    def __init__(self, folder: Path, port: int, urls: Sequence[str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._socket = folder / "haproxy.sock"
        config = folder / "haproxy.cfg"
        config.write_text(configuration(port, urls, self._socket))
        super().__init__(["haproxy", "-db", "-f", str(config)], errors=folder / "haproxy.log")

    def states(self) -> dict[str, str]:
        """What it says of each gateway, such as `UP`, `DOWN` or `UP 1/2`; nothing as long as it starts."""
        try:
            with socket.socket(socket.AF_UNIX) as talking:
                talking.settimeout(10)
                talking.connect(str(self._socket))
                talking.sendall(b"show stat\n")
                told = b"".join(iter(lambda: talking.recv(65536), b"")).decode()
        except OSError:
            return {}
        rows = csv.DictReader(told.removeprefix("# ").splitlines())
        return {row["svname"]: row["status"] for row in rows if row["pxname"] == BACKEND and row["svname"] != "BACKEND"}

    def wait_up(self, *names: str) -> None:
        """Until it sends requests to all of them, or to these."""

        def is_so() -> bool:
            states = self.states()
            return bool(states) and all(states[name] == "UP" for name in names or states)

        until(is_so)


def configuration(port: int, urls: Sequence[str], admin: Path) -> str:
    """The users' file, for these gateways on this machine."""
    text = CONFIG.read_text()
    servers = re.findall(r"^    server .*\n", text, re.MULTILINE)
    ours = "".join(f"    server gateway-{n} {urlsplit(url).netloc}\n" for n, url in enumerate(urls, 1))
    text = text.replace("".join(servers), ours).replace("bind :8000", f"bind 127.0.0.1:{port}")
    return text.replace("global\n", f"global\n    stats socket {admin} mode 600 level operator\n", 1)
