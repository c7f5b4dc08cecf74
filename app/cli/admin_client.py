"""Calls to the running gateway over its control socket. Whoever may open the socket is an administrator."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from app.cli.options import BAD_CONFIG, NO_GATEWAY, REFUSED, config_errors_reported, fail

_LOOK_S = 20.0  # what is only read is there at once, unless the gateway hangs
_CHANGE_S = 120.0  # a stop waits for running requests, a reload for the new configuration's processes


def socket_of(state: Path | None) -> Path:
    """The control socket's path in this state folder; None: the one that the environment names, or the default."""
    from app.config.settings import CONTROL_SOCKET, Settings, state_folder

    with config_errors_reported():
        return state_folder(state or Settings.from_env(os.environ).modelport_state) / CONTROL_SOCKET


def call(
    method: str,
    path: str,
    state: Path | None,
    params: dict[str, str] | None = None,
    body: object | None = None,
    timeout_s: float | None = None,
) -> Any:
    """Send one request and return the JSON of its response, which may take `timeout_s` seconds (by default 20 to read
    something, 120 to change something).

    Ends the command, with a message and an exit code, when no gateway answers or it refuses.
    """
    import httpx

    socket = socket_of(state)
    timeout_s = timeout_s or (_LOOK_S if method == "GET" else _CHANGE_S)
    try:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://gateway", timeout=timeout_s
        ) as client:
            response = client.request(method, path, params=params, json=body)
    except (httpx.ConnectError, FileNotFoundError):
        fail(
            f"No gateway is running with the state folder {socket.parent} (start one with `modelport serve`, or name "
            "its folder with --state).",
            NO_GATEWAY,
        )
    except httpx.TimeoutException:
        fail(f"The gateway did not answer within {timeout_s:.0f} s.", REFUSED)
    except httpx.TransportError as exc:
        fail(f"The gateway ended the connection: {exc}", REFUSED)
    if not response.is_success:
        lines, code = refusal(response.status_code, response.text)
        fail(lines, code)
    return response.json()


def refusal(status: int, body: str) -> tuple[list[str], int]:
    """The lines to show for a response that is not 2xx, and the exit code: 2 for a bad configuration, else 1. Pure."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"]).splitlines(), BAD_CONFIG if error.get("code") == "config_invalid" else REFUSED
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"The gateway answered {status}."], REFUSED
