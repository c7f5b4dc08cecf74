"""A child process: the embedded engine with one model. Says its tokens, log probabilities, speed and memory.

Run by path with the gateway's own Python, so it imports nothing of ours; the request is one JSON object on standard
input, progress and result are JSON lines on standard output. Members of the request, each optional but the first three:

- `model`, `threads`, `context`: the file, and how its engine is started.
- `passages`: each `{"messages": […]}` or `{"text": …}`; `limit`: how many tokens to take of all. Result: `tokens` (a
  list for each passage that was taken), `bos` (what stands before every text), `refused` (passages that the chat
  template cannot render), `first_refusal`.
- `probes`: lists of tokens. Result: `probes`, for each the pairs [token, log probability] of the likeliest next tokens.
- `timing`: a list of tokens as prompt, and `generate`: how many to write. Result: `prompt_per_s`, `generated_per_s`,
  `resident_bytes` of the process with its model, measured after that.
- `steps`: lists `[tokens, first]`, and `top`: for each position from `first` on, the pairs of the likeliest `top`
  tokens given all before it. Result: `steps`, one list of pairs for each position, in order.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

_PROBED = 10  # tokens compared at each position
_CERTAIN = 1000.0  # added to a logit; no other reaches it
_TELL_S = 0.5  # between two lines of progress
_ANSWER_S = 3600.0  # one request at most; a large model on a slow machine reads a window in minutes


class _Refused(Exception):
    """The engine's answer is an error; its message is the text."""


class _Teller:
    """Writes JSON lines to where standard output led at the start; the engine's own lines go to standard error."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._last = 0.0

    def line(self, **members: Any) -> None:
        self._out.write(json.dumps(members) + "\n")
        self._out.flush()

    def progress(self, phase: str, done: int, total: int) -> None:
        """Not more often than every _TELL_S, the last one always."""
        now = time.monotonic()
        if done >= total or now - self._last >= _TELL_S:
            self._last = now
            self.line(progress={"phase": phase, "done": done, "total": total})


class _Engine:
    """The engine's HTTP server in this process, spoken to as the gateway speaks to it."""

    def __init__(self, model: str, threads: int, context: int) -> None:
        import secrets

        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = model
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        self._key = secrets.token_hex(16)
        params.api_keys = [self._key]
        params.n_parallel = 1
        params.n_ctx = context
        params.n_batch = 512
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.prefill_assistant = False  # an answer at the end is a whole turn, not one to go on with
        params.warmup = False
        params.cache_ram_mib = 0
        params.ui = False
        self.version = str(xllamacpp.__version__)
        self._server = xllamacpp.Server(params)
        self._url = str(self._server.listening_address)
        self._letter = int(self.ask("/tokenize", {"content": "a", "add_special": False})["tokens"][-1])

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json", "authorization": f"Bearer {self._key}"}
        request = urllib.request.Request(f"{self._url}{path}", data=data, headers=headers)  # noqa: S310 - our own server
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_ANSWER_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as exc:
            text = exc.read().decode(errors="replace")
            with contextlib.suppress(ValueError, KeyError, TypeError):
                text = json.loads(text)["error"]["message"]
            raise _Refused(text) from exc

    def likeliest(self, tokens: list[int], count: int, *, is_cached: bool) -> list[list[float]]:
        """The `count` likeliest next tokens, each as [token, log probability].

        It is made to write a letter: of a token that is a part of a character, the engine tells nothing before it has
        the rest. What it tells are the model's own probabilities, from before this bias.
        """
        body = {
            "prompt": tokens,
            "n_predict": 1,
            "temperature": 0,
            "n_probs": count,
            "cache_prompt": is_cached,
            "logit_bias": [[self._letter, _CERTAIN]],
        }
        first = self.ask("/completion", body)["completion_probabilities"][0]
        return [[each["id"], each["logprob"]] for each in first["top_logprobs"]]


def _tokens(engine: _Engine, request: dict[str, Any], tell: _Teller) -> dict[str, Any]:
    limit, taken, total, refused, first_refusal = request["limit"], [], 0, 0, ""
    for passage in request["passages"]:
        is_chat = "messages" in passage
        try:
            text = passage.get("text", "")
            if is_chat:
                text = engine.ask("/apply-template", {**passage, "add_generation_prompt": False})["prompt"]
        except _Refused as exc:
            refused += 1
            first_refusal = first_refusal or str(exc)
            continue
        # Marks such as <|im_end|> are tokens where the template wrote them, and mere letters in a plain text.
        body = {"content": text, "add_special": True, "parse_special": is_chat}
        tokens = engine.ask("/tokenize", body)["tokens"][: limit - total]
        if len(tokens) > 1:  # nothing can be predicted of a single one
            taken.append(tokens)
            total += len(tokens)
        tell.progress("tokens", total, limit)
        if total >= limit - 1:
            break
    bos = engine.ask("/tokenize", {"content": "", "add_special": True})["tokens"]
    return {"tokens": taken, "bos": bos, "refused": refused, "first_refusal": first_refusal}


def _speed(engine: _Engine, request: dict[str, Any]) -> dict[str, Any]:
    """The better of two runs: what else the machine did in between is not the model's."""
    body = {
        "prompt": request["timing"],
        "n_predict": request["generate"],
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": False,
    }
    runs = [engine.ask("/completion", body)["timings"] for _ in range(2)]
    return {
        "prompt_per_s": max(run["prompt_per_second"] for run in runs),
        "generated_per_s": max(run["predicted_per_second"] for run in runs),
        "resident_bytes": _resident(),
    }


def _resident() -> int:
    """How much memory this process has, in bytes, with the pages of the model file that it uses."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            sizes = [line.split()[1] for line in file if line.startswith("VmRSS:")]
        return int(sizes[0]) * 1024
    except (OSError, IndexError, ValueError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _steps(engine: _Engine, request: dict[str, Any], tell: _Teller) -> list[list[list[float]]]:
    steps: list[list[list[float]]] = []
    total = sum(len(tokens) - first for tokens, first in request["steps"])
    for tokens, first in request["steps"]:
        for position in range(first, len(tokens)):
            steps.append(engine.likeliest(tokens[:position], request["top"], is_cached=True))
            tell.progress("top log probabilities", len(steps), total)
    return steps


def main() -> None:
    """Answer the one request on standard input and end, whatever threads the engine has."""
    tell = _Teller()
    request = json.load(sys.stdin)
    try:
        engine = _Engine(request["model"], request["threads"], request["context"])
        result: dict[str, Any] = {"version": engine.version}
        if "passages" in request:
            result |= _tokens(engine, request, tell)
        if "probes" in request:
            result["probes"] = [engine.likeliest(tokens, _PROBED, is_cached=False) for tokens in request["probes"]]
        if "timing" in request:
            result |= _speed(engine, request)
        if "steps" in request:
            result["steps"] = _steps(engine, request, tell)
        tell.line(result=result)
    except (_Refused, OSError, RuntimeError, LookupError, ValueError, http.client.HTTPException) as exc:
        tell.line(error=f"the embedded engine cannot be asked about {os.path.basename(request['model'])}: {exc}")  # noqa: PTH119
    os._exit(0)


if __name__ == "__main__":
    main()
