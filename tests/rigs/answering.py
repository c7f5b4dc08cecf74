"""An engine behind a URL that answers each chat as a function says, in a thread of its own."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

# Model and the last message's text → the answer's text.
Answering = Callable[[str, str], str]


class AnsweringEngine:
    """Serves these models; `asked` are the bodies of all chats that came. Used as a context manager."""

    def __init__(self, models: Sequence[str], answer: Answering) -> None:
        self.asked: list[dict[str, Any]] = []
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send({"object": "list", "data": [{"id": each, "object": "model"} for each in models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path != "/v1/chat/completions":
                    self._send({"error": {"message": "no such route", "code": 404}}, 404)
                    return
                engine.asked.append(body)
                self._stream(answer(body["model"], body["messages"][-1]["content"]))

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing is printed."""

            def _send(self, value: object, status: int = 200) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _stream(self, text: str) -> None:
                choices: list[dict[str, Any]] = [
                    {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None},
                    {"index": 0, "delta": {}, "finish_reason": "stop"},
                ]
                head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
                chunks: list[Any] = [{**head, "choices": [each]} for each in choices]
                chunks.append({**head, "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})
                data = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks)
                data += b"data: [DONE]\n\n"
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # whoever asked may have left
                    self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20)
