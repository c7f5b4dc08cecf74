"""An OpenAI-compatible engine that streams written texts: by the model's name, a few characters at a time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Story:
    """What a model says. `pause_s` passes between pieces of `piece` characters. An endless one begins again; where one
    is cut, the connection ends before the answer does.
    """

    text: str
    thinking: str = ""
    piece: int = 7
    pause_s: float = 0.0
    is_endless: bool = False
    is_cut: bool = False

    def pieces(self) -> Iterator[dict[str, str]]:
        """Deltas of OpenAI's chunks."""
        for at in range(0, len(self.thinking), self.piece):
            yield {"reasoning_content": self.thinking[at : at + self.piece]}
        while True:
            for at in range(0, len(self.text), self.piece):
                yield {"content": self.text[at : at + self.piece]}
            if not self.is_endless:
                return


class Narrator:
    """The engine, on a free port of this machine, as long as the block lasts. `asked` are the chats that it was sent;
    `left` counts the streams that their reader left before the end.
    """

    def __init__(self, stories: dict[str, Story]) -> None:
        self.stories = stories
        self.asked: list[dict[str, Any]] = []
        self.left = 0
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

            def do_GET(self) -> None:
                data = [{"id": name, "object": "model", "max_model_len": 8192} for name in engine.stories]
                self._answer({"object": "list", "data": data})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                engine.asked.append(body)
                story = engine.stories[body["model"]]
                if body.get("stream"):
                    self._stream(story)
                else:
                    message = {"role": "assistant", "content": story.text}
                    choice = {"index": 0, "message": message, "finish_reason": "stop"}
                    self._answer(
                        {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
                    )

            def _answer(self, said: dict[str, Any]) -> None:
                data = json.dumps(said).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _stream(self, story: Story) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                count = 0
                try:
                    for delta in story.pieces():
                        count += 1
                        self._event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
                        if story.pause_s:
                            time.sleep(story.pause_s)
                    if story.is_cut:
                        self.close_connection = True
                        return
                    self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
                    usage = {"prompt_tokens": 21, "completion_tokens": count, "total_tokens": 21 + count}
                    self._event({"choices": [], "usage": usage})
                    self._write(b"data: [DONE]\n\n")
                    self.wfile.write(b"0\r\n\r\n")
                except OSError:
                    engine.left += 1
                    self.close_connection = True

            def _event(self, chunk: dict[str, Any]) -> None:
                whole = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **chunk}
                self._write(b"data: " + json.dumps(whole).encode() + b"\n\n")

            def _write(self, data: bytes) -> None:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                self.wfile.flush()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
