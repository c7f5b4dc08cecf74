"""An OpenAI-compatible engine that plays a part: each turn of the agent's gets the next answer of its script.

It keeps what it was sent. A request without tools is not one of the agent's turns (a title, a summary) and gets a word.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

NAME = "scripted"
MAX_TOKENS = 100_000
TOO_LONG = (
    f"This model's maximum context length is {MAX_TOKENS} tokens. However, your request has 123456 input tokens. "
    "Please reduce the length of the input messages."
)


@dataclass(frozen=True)
class Says:
    """A text; one that `breaks` is cut in the middle of its stream."""

    text: str
    breaks: bool = False


@dataclass(frozen=True)
class Calls:
    """Tools that it calls at once, by the end of their names: agents put namespaces before them."""

    calls: Sequence[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Refuses:
    """A prompt that is too long."""


Turn = Says | Calls | Refuses


@dataclass
class Played:
    """The script, and what the engine was sent."""

    turns: list[Turn] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)

    def messages(self, role: str) -> list[dict[str, Any]]:
        """Those of the last turn that have this role."""
        return [message for message in self.seen[-1]["messages"] if message["role"] == role]


class Engine:
    """The engine, on a free port of this machine, as long as the block lasts."""

    def __init__(self) -> None:
        self.part = Played()
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

            def do_GET(self) -> None:
                model = {"id": NAME, "object": "model", "max_model_len": MAX_TOKENS}
                self._answer(200, {"object": "list", "data": [model]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                turn = engine.next(body)
                if isinstance(turn, Refuses):
                    self._answer(400, {"error": {"message": TOO_LONG, "type": "BadRequestError", "code": 400}})
                elif body.get("stream"):
                    self._stream(turn, body)
                else:
                    self._answer(200, _whole(turn, body))

            def _answer(self, status: int, said: dict[str, Any]) -> None:
                data = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _stream(self, turn: Says | Calls, body: dict[str, Any]) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for event in _events(turn, body):
                    data = f"data: {event}\n\n".encode()
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                    self.wfile.flush()
                if isinstance(turn, Says) and turn.breaks:
                    self.close_connection = True
                else:
                    self.wfile.write(b"0\r\n\r\n")

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def play(self, *turns: Turn) -> Played:
        """Play this script from now on."""
        self.part = Played(list(turns))
        return self.part

    def next(self, body: dict[str, Any]) -> Turn:
        """The step of the script that this request gets."""
        if not body.get("tools"):
            return Says("A title")
        self.part.seen.append(body)
        return self.part.turns.pop(0) if self.part.turns else Says("The script is at its end.")


def _calls(turn: Calls, body: dict[str, Any]) -> list[dict[str, Any]]:
    names = [tool["function"]["name"] for tool in body["tools"]]
    return [
        {
            "index": index,
            "id": f"call_{index}_{len(body['messages'])}",
            "type": "function",
            "function": {"name": next(n for n in names if n.endswith(name)), "arguments": json.dumps(arguments)},
        }
        for index, (name, arguments) in enumerate(turn.calls)
    ]


def _events(turn: Says | Calls, body: dict[str, Any]) -> Iterator[str]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": NAME}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        return json.dumps(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    yield chunk({"role": "assistant", "content": ""})
    if isinstance(turn, Calls):
        # The pieces of calls that are made at once may alternate.
        calls = _calls(turn, body)
        for call in calls:
            yield chunk({"tool_calls": [call | {"function": call["function"] | {"arguments": ""}}]})
        halves = [(call["index"], call["function"]["arguments"]) for call in calls]
        for index, arguments in halves:
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments[:5]}}]})
        for index, arguments in halves:
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments[5:]}}]})
        yield chunk({}, "tool_calls")
    else:
        yield chunk({"content": turn.text})
        if turn.breaks:
            return
        yield chunk({}, "stop")
    if (body.get("stream_options") or {}).get("include_usage"):
        yield json.dumps(head | {"choices": [], "usage": _USAGE})
    yield "[DONE]"


def _whole(turn: Says | Calls, body: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": turn.text if isinstance(turn, Says) else None}
    if isinstance(turn, Calls):
        message["tool_calls"] = _calls(turn, body)
    finish = "tool_calls" if isinstance(turn, Calls) else "stop"
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": NAME, "choices": [choice]} | {
        "usage": _USAGE
    }


_USAGE = {"prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55}
