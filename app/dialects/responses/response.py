"""Responses as OpenAI's `/v1/responses` has them: output items, or the events that build them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from app.dialects.client_api import given
from app.dialects.responses.tools import NONE, ClientTools, free_text
from app.dialects.sse import CONTENT_TYPE
from app.dialects.usage import EngineStats, Usage
from app.errors import JSON, Problem
from backends.http.delta import CallDelta, Delta

# This dialect's names for what chats call otherwise.
PARAMS: Final = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "think": "reasoning.effort",
    "response_format": "text.format",
}
_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}


@dataclass
class _Written:
    """An item that is being written, and its place among them."""

    at: int
    item: dict[str, Any]
    text: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)


class ResponsesEncoder:
    """Writes one response. `echo` are the members that repeat the request."""

    whole_type = JSON
    stream_type = CONTENT_TYPE
    event_codes = frozenset({"context_length_exceeded"})  # Codex makes room when it reads it; a 400 is the end for it

    def __init__(
        self, name: str, token: str, clock: Callable[[], float], echo: Mapping[str, Any], tools: ClientTools = NONE
    ) -> None:
        self._name = name
        self._token = token
        self._clock = clock
        self._created = int(clock())
        self._echo = echo
        self._tools = tools
        self._sequence = 0
        self._items: list[dict[str, Any]] = []
        self._written: _Written | None = None  # the message or thought that is being written
        self._calls: dict[int, _Written] = {}  # being written until the end: the parts of several may alternate
        self._finish: str | None = None

    def refused(self, problem: Problem) -> bytes:
        """OpenAI's error object, as on all of OpenAI's routes."""
        return msgspec.json.encode({"error": _error(problem)})

    def failed(self, problem: Problem) -> bytes:
        """OpenAI's error event; SDKs look for its `error`, and Codex for a second event."""
        error = _error(problem)
        named = {name: error[name] for name in ("code", "message", "param")}
        if problem.code not in self.event_codes:
            return self._event("error", **named, error=error)
        out = [*self._begin(), self._event("error", **named, error=error)]
        failure = {"code": problem.code, "message": problem.message}
        response = {**self._response(None), "status": "failed", "error": failure}
        return b"".join([*out, self._event("response.failed", response=response)])

    def waiting(self, what: str) -> bytes:
        """A comment that says what is waited for."""
        return f": waiting for {what}\n\n".encode()

    def next(self, delta: Delta) -> bytes:
        """Events that add items, write in them and finish them."""
        out = self._begin()
        self._finish = delta.finish or self._finish
        if delta.thinking:
            out += self._write("reasoning", delta.thinking)
        if delta.text or (delta.logprobs and self._is_open("message")):
            out += self._write("message", delta.text or "", _logprobs(delta) if delta.logprobs else [])
        for call in delta.calls:
            out += self._write_call(call)
        return b"".join(out)

    def end(self, usage: Usage, stats: EngineStats) -> bytes:
        """The whole response once more, with what it cost."""
        out = [*self._begin(), *self._close(is_last=not self._calls), *self._close_calls()]
        response = self._response(_usage(usage, stats))
        out.append(self._event(f"response.{response['status']}", response=response))
        return b"".join(out)

    def whole(self, delta: Delta, usage: Usage, stats: EngineStats) -> bytes:
        """The response with all its items."""
        self._finish = delta.finish
        if delta.thinking:
            self._items.append(self._item("reasoning", delta.thinking))
        if delta.text:
            self._items.append(self._item("message", delta.text, _logprobs(delta)))
        for call in delta.calls:
            self._items.append(self._call(call.name, call.id, call.arguments))
        if self._items and self._finish in _CUT:
            last = self._items[-1]
            last["status"] = "incomplete"
            if delta.calls and not delta.calls[-1].arguments and "arguments" in last:
                last["arguments"] = ""
        return msgspec.json.encode(self._response(_usage(usage, stats)))

    def embeddings(self, answer: bytes, usage: Usage) -> bytes:
        """This API has none."""
        raise ValueError("embeddings")

    # -- the response

    def _response(self, usage: dict[str, Any] | None) -> dict[str, Any]:
        """The response object; without a usage it has only begun."""
        status, cut = "in_progress", None
        if usage is not None:
            cut = _CUT.get(self._finish or "")
            status = "incomplete" if cut else "completed"
        return {
            "id": f"resp_{self._token}",
            "object": "response",
            "created_at": self._created,
            "completed_at": int(self._clock()) if status == "completed" else None,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": cut} if cut else None,
            "model": self._name,
            "output": self._items if usage is not None else [],
            "usage": usage,
            "background": False,
            "previous_response_id": None,
            "store": False,
            "truncation": "disabled",
            **self._echo,
        }

    def _item(
        self, kind: str, text: str, logprobs: list[dict[str, Any]] | None = None, *, status: str = "completed"
    ) -> dict[str, Any]:
        """An item of that kind (`message` or `reasoning`) with this text; one in progress has no parts yet."""
        at = len(self._items)
        is_begun = status == "in_progress"
        if kind == "reasoning":
            parts = [] if is_begun else [{"type": "reasoning_text", "text": text}]
            more: dict[str, Any] = {"id": f"rs_{self._token}{at}", "summary": [], "content": parts}
        else:
            parts = [] if is_begun else [_output(text, logprobs or [])]
            more = {"id": f"msg_{self._token}{at}", "role": "assistant", "content": parts}
        return {"type": kind, "status": status, **more}

    def _call(self, name: str, id_: str, arguments: str, status: str = "completed") -> dict[str, Any]:
        """The item for a call of one of the client's tools, under the tool's own name and in its kind."""
        tool = self._tools.told(name)
        named = {"call_id": id_, "name": tool.name, **given(namespace=tool.namespace)}
        if tool.kind == "custom":
            text = free_text(arguments) if arguments else ""
            return {"type": "custom_tool_call", "status": status, "id": f"ctc_{self._token}{len(self._items)}"} | {
                **named,
                "input": text,
            }
        item = {"type": "function_call", "status": status, "id": f"fc_{self._token}{len(self._items)}"}
        return {**item, **named, "arguments": arguments or ("{}" if status == "completed" else "")}

    # -- events

    def _begin(self) -> list[bytes]:
        if self._sequence:
            return []
        response = self._response(None)
        return [self._event(f"response.{kind}", response=response) for kind in ("created", "in_progress")]

    def _is_open(self, kind: str) -> bool:
        return self._written is not None and self._written.item["type"] == kind

    def _write(self, kind: str, text: str, logprobs: list[dict[str, Any]] | None = None) -> list[bytes]:
        """Add to the item of that kind that is being written, or to a new one."""
        out: list[bytes] = []
        if not self._is_open(kind):
            out = [*self._close(), *self._open(self._item(kind, "", status="in_progress"))]
            self._written = _Written(len(self._items) - 1, self._items[-1])
            out.append(self._part("added", self._written, self._content(kind, "", [])))
        written = self._written
        assert written is not None
        written.text.append(text)
        if kind == "message":
            written.logprobs += logprobs or []
            out.append(self._in_part("response.output_text.delta", written, delta=text, logprobs=logprobs or []))
        else:
            out.append(self._in_part("response.reasoning_text.delta", written, delta=text))
        return out

    def _write_call(self, call: CallDelta) -> list[bytes]:
        out: list[bytes] = []
        if call.is_new:
            out = [*self._close(), *self._open(self._call(call.name, call.id, "", "in_progress"))]
            self._calls[call.at] = _Written(len(self._items) - 1, self._items[-1])
        written = self._calls[call.at]
        written.text.append(call.arguments)
        if call.arguments and written.item["type"] == "function_call":
            out.append(self._in_item("response.function_call_arguments.delta", written, delta=call.arguments))
        return out

    def _open(self, item: dict[str, Any]) -> list[bytes]:
        self._items.append(item)
        return [self._event("response.output_item.added", output_index=len(self._items) - 1, item=item)]

    def _close(self, *, is_last: bool = False) -> list[bytes]:
        """Finish the message or reasoning that is being written; the last item of a cut response is incomplete."""
        written, self._written = self._written, None
        if written is None:
            return []
        kind, text = written.item["type"], "".join(written.text)
        content = self._content(kind, text, written.logprobs)
        members = {"text": text, "logprobs": written.logprobs} if kind == "message" else {"text": text}
        name = "output_text" if kind == "message" else "reasoning_text"
        out = [self._in_part(f"response.{name}.done", written, **members), self._part("done", written, content)]
        return [*out, self._done(written, is_last=is_last, content=[content])]

    def _close_calls(self) -> list[bytes]:
        """Finish all calls."""
        out: list[bytes] = []
        for written in self._calls.values():
            text = "".join(written.text)
            is_last = written.at == len(self._items) - 1
            if written.item["type"] == "function_call":
                arguments = text or ("" if is_last and self._finish in _CUT else "{}")
                name = written.item["name"]
                out.append(
                    self._in_item("response.function_call_arguments.done", written, arguments=arguments, name=name)
                )
                out.append(self._done(written, is_last=is_last, arguments=arguments))
                continue
            text = free_text(text)
            out.append(self._in_item("response.custom_tool_call_input.delta", written, delta=text))
            out.append(self._in_item("response.custom_tool_call_input.done", written, input=text))
            out.append(self._done(written, is_last=is_last, input=text))
        self._calls = {}
        return out

    def _done(self, written: _Written, *, is_last: bool, **changed: Any) -> bytes:
        status = "incomplete" if is_last and self._finish in _CUT else "completed"
        item = self._items[written.at] = {**written.item, **changed, "status": status}
        return self._event("response.output_item.done", output_index=written.at, item=item)

    def _content(self, kind: str, text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        return _output(text, logprobs) if kind == "message" else {"type": "reasoning_text", "text": text}

    def _part(self, what: str, written: _Written, part: dict[str, Any]) -> bytes:
        return self._in_part(f"response.content_part.{what}", written, part=part)

    def _in_part(self, kind: str, written: _Written, **members: Any) -> bytes:
        return self._in_item(kind, written, content_index=0, **members)

    def _in_item(self, kind: str, written: _Written, **members: Any) -> bytes:
        return self._event(kind, item_id=written.item["id"], output_index=written.at, **members)

    def _event(self, kind: str, **members: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._sequence, **members}
        self._sequence += 1
        return f"event: {kind}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


def _usage(usage: Usage, stats: EngineStats) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": stats.cached, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": stats.reasoned},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _error(problem: Problem) -> dict[str, Any]:
    """OpenAI's error object, with the names that this API has for parameters."""
    param = PARAMS.get(problem.param or "", problem.param)
    message = problem.message.replace(f"'{problem.param}'", f"'{param}'")
    return {"message": message, "type": problem.type, "param": param, "code": problem.code}


def _output(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _logprobs(delta: Delta) -> list[dict[str, Any]]:
    """Log probabilities with the members that the SDK's types want, whatever the engine gave."""

    def one(given: Mapping[str, Any]) -> dict[str, Any]:
        token = str(given.get("token", ""))
        return {"token": token, "logprob": given.get("logprob"), "bytes": given.get("bytes") or list(token.encode())}

    return [
        {**one(given), "top_logprobs": [one(top) for top in given.get("top_logprobs") or ()]}
        for given in delta.logprobs or ()
    ]
