"""What the fake daemon's models generate: what a real one was recorded generating, a few fixed words, or a real
model's.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests.fakes.ollama_models import Model
from tests.rigs.transcripts import Json, Transcript, transcripts

WORDS = ("The", " sum", " of", " 7", " and", " 5", " is", " zwölf", ",", " 十二", " 🙂", ".")
DEFAULTS: Json = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "repeat_penalty": 1.0, "num_predict": -1, "seed": -1}
_SPACE = re.compile(r"\s+")


@dataclass
class Ask:
    """One request as a model sees it. `options` are the effective ones, `given` those of the request."""

    model: Model
    messages: list[Json] = field(default_factory=list)
    prompt: str | None = None
    options: Json = field(default_factory=dict)
    given: Json = field(default_factory=dict)
    format: Any = None
    tools: list[Json] = field(default_factory=list)
    think: Any = None
    logprobs: bool = False
    is_raw: bool = False
    is_stream: bool = False
    path: str = ""

    @property
    def limit(self) -> int:
        """The most tokens that it may generate; -1 for no limit."""
        return int(self.options.get("num_predict", -1))


@dataclass
class Generated:
    """A response. `count` are its tokens, which may be more than its pieces."""

    prompt_tokens: int
    pieces: list[Json]
    count: int
    logprobs: list[Json] | None = None
    reason: str = "stop"


Voice = Callable[[Ask], Awaitable[Generated]]


def tokens(ask: Ask) -> int:
    """How many tokens the prompt has: a guess, but for those that were recorded as too long."""
    for each in _recorded():
        if each.too_long and each.key == _key(ask.messages, ask.prompt):
            return each.too_long
    texts = [str(message.get("content", "")) for message in ask.messages] or [ask.prompt or ""]
    return sum(2 * len(text.split()) for text in texts) + 5 * len(ask.messages)


class Recorded:
    """As the real daemon, where it was asked much the same; else `parrot`. Of responses that were sampled it gives one
    after the other, in the order of the recording.
    """

    def __init__(self) -> None:
        self._given: Counter[str] = Counter()

    async def __call__(self, ask: Ask) -> Generated:
        key = _key(ask.messages, ask.prompt)
        alike = [each for each in _recorded() if each.key == key and not each.too_long and each.is_raw == ask.is_raw]
        if not alike:
            return await parrot(ask)
        most = max(each.score(ask) for each in alike)
        best = [each for each in alike if each.score(ask) == most]
        turn = f"{ask.path} {' '.join(each.name for each in best)}"
        chosen = best[self._given[turn] % len(best)]
        self._given[turn] += 1
        return _cut(chosen, ask)


def _cut(best: _Recorded, ask: Ask) -> Generated:
    """As much of the response as the request allows."""
    pieces, count = best.pieces, best.count
    if 0 < ask.limit < count:
        text = "".join(str(piece.get("content", "")) for piece in pieces)
        words = re.findall(r"\s*\S+", text)[: ask.limit]
        pieces, count = [{"content": word} for word in words], ask.limit
    return Generated(best.prompt_tokens, pieces, count, best.logprobs, best.reason if count == best.count else "length")


async def parrot(ask: Ask) -> Generated:
    """The same words for everybody; with a temperature they begin by the seed, so that it shows."""
    last = ask.messages[-1] if ask.messages else {"role": "user"}
    if ask.tools and last.get("role") == "user":
        function = ask.tools[0]["function"]
        wanted = (function.get("parameters") or {}).get("required") or []
        call = {"index": 0, "name": function["name"], "arguments": dict.fromkeys(wanted, "Paris")}
        return Generated(tokens(ask), [{"content": "", "tool_calls": [{"id": "call_parrot01", "function": call}]}], 20)
    words = list(WORDS)
    if ask.format is not None:
        words = ["{", '"answer"', ":", '"yes"', "}"]
    elif float(ask.options.get("temperature", 0.8)) > 0:
        words[0] = f"[{ask.options.get('seed', -1)}]"
    stops = ask.options.get("stop") or []
    cut = next((i for i, word in enumerate(words) if any(stop in word for stop in stops)), len(words))
    words = words[:cut]
    pieces: list[Json] = [{"content": word} for word in words]
    if ask.think:
        pieces = [{"content": "", "thinking": "Let me"}, {"content": "", "thinking": " think."}, *pieces]
    is_long = 0 < ask.limit < len(pieces)
    pieces = pieces[: ask.limit] if is_long else pieces
    probs = [{"token": p["content"], "logprob": -0.5, "bytes": list(p["content"].encode())} for p in pieces]
    return Generated(tokens(ask), pieces, len(pieces), probs if ask.logprobs else None, "length" if is_long else "stop")


# -- what was recorded


@dataclass(frozen=True)
class _Recorded:
    name: str
    key: str
    model: str
    options: Json
    pieces: list[Json]
    prompt_tokens: int
    count: int
    reason: str
    logprobs: list[Json] | None = None
    is_raw: bool = False
    too_long: int = 0
    parts: int = 1
    path: str = ""
    is_stream: bool = False

    def score(self, ask: Ask) -> tuple[int, ...]:
        own, theirs = self.options, ask.options
        heat = float(theirs.get("temperature", 0.8))
        same = [own.get(name) == theirs.get(name) for name in ("seed", "num_predict", "stop")]
        return (
            self.model == ask.model.name.lower().removesuffix(":latest"),
            self.parts == sum(1 + str(message.get("content")).count("\n") for message in ask.messages),
            own.get("temperature") == heat,
            (self.logprobs is not None) == ask.logprobs,
            (own.get("format") is not None) == (ask.format is not None),
            same[1],
            same[2],
            heat == 0 or same[0],
            self.is_stream == ask.is_stream,
            self.path == ask.path,
        )


def _key(messages: list[Json], prompt: str | None) -> str:
    """The conversation in a form that is the same for all its spellings."""
    if not messages:
        return f"prompt {prompt}"
    turns: list[list[str]] = []
    for message in messages:
        role = "system" if message.get("role") == "developer" else str(message.get("role"))
        content = message.get("content") or ""
        text = content if isinstance(content, str) else " ".join(str(part.get("text", "")) for part in content)
        if turns and turns[-1][0] == role:
            turns[-1][1] += f" {text}"
        else:
            turns.append([role, text])
    return json.dumps([[role, _SPACE.sub(" ", text).strip()] for role, text in turns])


@cache
def _recorded() -> tuple[_Recorded, ...]:
    chats = [_read(each) for each in transcripts().values()]
    return tuple(each for each in chats if each is not None)


def _read(one: Transcript) -> _Recorded | None:
    if one.path not in ("/api/chat", "/api/generate", "/v1/chat/completions", "/v1/completions") or not one.body:
        return None
    if one.status != 200 and one.name != "182_chat_truncate_false":
        return None
    asked = json.loads(one.body)
    messages, prompt = asked.get("messages") or [], asked.get("prompt")
    if not messages and not prompt:
        return None
    key = _key(messages, prompt)
    if one.status != 200:
        return _Recorded(one.name, key, "", {}, [], 0, 0, "", too_long=2680)
    is_v1 = one.path.startswith("/v1")
    options = _given(asked) if is_v1 else dict(asked.get("options") or {})
    if not is_v1 and "temperature" not in options:
        options["temperature"] = 0 if asked["model"].lower().startswith("mymodel") else 0.7
    options["format"] = asked.get("response_format") or asked.get("format")
    pieces, usage, reason, probs = _answer(one, is_v1=is_v1)
    model = str(asked["model"]).lower().removesuffix(":latest")
    parts = sum(len(m["content"]) if isinstance(m.get("content"), list) else 1 for m in messages)
    raw = bool(asked.get("raw"))
    return _Recorded(
        one.name,
        key,
        model,
        options,
        pieces,
        usage[0],
        usage[1],
        reason,
        probs,
        is_raw=raw,
        parts=parts,
        path=one.path,
        is_stream=len(one.pieces) > 1,
    )


def _given(asked: Json) -> Json:
    """Options of a `/v1` request as the daemon makes them: temperature and top_p are always set."""
    stop = asked.get("stop")
    bound = {"num_predict": asked["max_tokens"] or -1} if "max_tokens" in asked else {}
    stops = {"stop": [stop] if isinstance(stop, str) else stop} if stop else {}
    seed = {"seed": asked["seed"]} if "seed" in asked else {}
    return {"temperature": asked.get("temperature", 1.0), "top_p": asked.get("top_p", 1.0), **bound, **stops, **seed}


def _answer(one: Transcript, *, is_v1: bool) -> tuple[list[Json], tuple[int, int], str, list[Json] | None]:
    pieces: list[Json] = []
    usage, reason, probs = (12, 0), "stop", None
    for value in one.objects:
        if not is_v1:
            message = value.get("message") or {"content": value.get("response", "")}
            text = {key: message[key] for key in ("content", "thinking", "tool_calls") if key in message}
            usage = (value.get("prompt_eval_count", usage[0]), value.get("eval_count", usage[1]))
            reason = value.get("done_reason", reason)
            probs = value.get("logprobs", probs)
        else:
            choice: Json = next(iter(value.get("choices") or ()), {})
            delta = choice.get("message") or choice.get("delta") or {"content": choice.get("text") or ""}
            text = {"content": delta.get("content") or ""}
            if delta.get("tool_calls"):
                text["tool_calls"] = [_native(call) for call in delta["tool_calls"]]
            counts = value.get("usage") or {}
            if counts.get("completion_tokens"):
                usage = (counts["prompt_tokens"], counts["completion_tokens"])
            reason = choice.get("finish_reason") or reason
            probs = (choice.get("logprobs") or {}).get("content") or probs
        if text.get("content") or text.get("tool_calls") or text.get("thinking"):
            pieces.append(text)
    if not usage[1]:
        usage = (usage[0], len(pieces))
    return pieces, usage, "length" if reason == "length" else "stop", probs


def _native(call: Json) -> Json:
    function = call["function"]
    made = {"index": call["index"], "name": function["name"], "arguments": json.loads(function["arguments"])}
    return {"id": call["id"], "function": made}
