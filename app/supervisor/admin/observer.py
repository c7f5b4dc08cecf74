"""What a served model really does: the prompts that it builds, where it stops, what it takes and draws with.

Questions go through a relay, as a client's would, because what the gateway does to a request is a part of what is
served (docs/decisions.md, "Observed as a client sees it"); an engine is asked itself for what only it can tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from app.certificate.observation import (
    Candidate,
    ChatQuestion,
    Observation,
    Questions,
    SeenAnswer,
    SeenContext,
    SeenFile,
    SeenPrompt,
    SeenSampling,
    SeenStop,
    SeenToken,
)
from app.certificate.serving import effective
from app.errors import problem
from app.routing import resolve
from app.supervisor.fleet.waiters import WaitOutcome
from app.table import Backend, PublicModel, Rules, Table, Target
from backends.config.base import BackendConfig
from backends.endpoint import Endpoint, State
from backends.errors import BackendError
from backends.http.probe_client import ProbeClient, Reply
from backends.kinds import preflight
from backends.model_files.digests import weights_digest
from backends.preflight import EngineAccount, ModelOnDisk, Preflight

ASK_S: Final = 300.0  # for one question: an answer of some dozen tokens, or a prompt of thousands, on a slow processor
MOST_CONTEXT: Final = 200_000  # tokens; the bodies of larger prompts are not sent
_TOO_LONG: Final = "context_length_exceeded"
_TOP: Final = 5
_FORCING: Final = 100  # `logit_bias` that makes an engine write a token
_STOP_TOKENS: Final = 4
_DRAWN_TOKENS: Final = 16
_DRAWN: Final[dict[str, Any]] = {
    "messages": [{"role": "user", "content": "Write one sentence about the sea."}],
    "max_tokens": _DRAWN_TOKENS,
    "seed": 7,
}


class ModelAsker:
    """Asks the gateway's own public address, as a client of it. `key`: its key, in case that keys are asked for."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._headers = {"authorization": f"Bearer {key}"}
        self._client = ProbeClient("gateway")

    async def ask(self, path: str, body: Mapping[str, Any]) -> Reply:
        """The response, whatever its status; BackendError where there is none."""
        return await self._client.ask(f"{self._url}{path}", self._headers, timeout_s=ASK_S, body=body)


class _Served(NamedTuple):
    """A public name and the first engine behind it, which serves."""

    name: str
    target: Target
    row: Backend
    endpoint: Endpoint
    rules: Rules
    disk: ModelOnDisk | None
    account: EngineAccount


class ServedModels(Protocol):
    """Who asks, the backends' configurations, and what stands for all that decides a public name's answers."""

    asker: ModelAsker
    configs: Mapping[str, BackendConfig]

    def identity(self, model: PublicModel) -> str: ...


class Observer:
    """Observes public names. `wanted`: the fleet's, which starts a backend and waits for it; `rows`: all backends as
    they are now.
    """

    def __init__(
        self,
        known: ServedModels,
        wanted: Callable[[str], Awaitable[WaitOutcome]],
        rows: Callable[[], Mapping[str, Backend]],
    ) -> None:
        self._known = known
        self._asker = known.asker
        self._wanted = wanted
        self._rows = rows

    async def observe(self, table: Table, name: str, asked: Questions) -> Observation:
        """What these questions show. Problem when its engine cannot be reached now; KeyError when there is no model of
        that name.
        """
        resolved = resolve(table, name)
        if resolved is None:
            raise KeyError(name)
        try:
            served = await self._ready(resolved.name, resolved.model.targets[0], resolved.model.rules)
            facts = served.row.fact(served.target.model)
            profile = served.row.profile
            return Observation(
                model=resolved.name,
                backend=served.row.name,
                kind=served.row.kind,
                title=profile.title,
                version=served.row.version,
                serving=served.row.serving_digest(served.target.model),
                identity=self._known.identity(resolved.model),
                quantization=facts.quantization if facts is not None else None,
                architecture=facts.architecture if facts is not None else None,
                prompts={each: await self._prompt(name, chat) for each, chat in asked.prompts.items()},
                answers={
                    each: await self._answer(name, chat, asked.max_tokens) for each, chat in asked.answers.items()
                },
                stops={text: await self._stop(served, text) for text in asked.stops},
                context=await self._context(served, asked.context),
                sampling=await self._sampling(served) if asked.sampling else SeenSampling(),
                file=await self._file(served, hashes=asked.hashes),
            )
        except BackendError as exc:
            raise problem(exc) from exc

    async def _ready(self, name: str, target: Target, rules: Rules) -> _Served:
        waited = await self._wanted(target.backend)
        if waited.permit is not None:
            waited.permit.release(is_used=False)  # each question asks for one of its own
        row = self._rows().get(target.backend)
        if row is None or not waited.is_ready or row.endpoint is None:
            row = row or Backend(target.backend, "", State.STOPPED)
            raise row.not_ready(time.time(), waited.reason or "it is not ready", waited.retry_after_s)
        config = self._known.configs.get(target.backend)
        if config is None:
            return _Served(name, target, row, row.endpoint, rules, None, EngineAccount())
        before = preflight(config)
        account = await _account(before, row.endpoint, target.model)
        return _Served(name, target, row, row.endpoint, rules, await asyncio.to_thread(before.on_disk), account)

    # -- through a relay, as a client

    async def _prompt(self, name: str, chat: ChatQuestion) -> SeenPrompt:
        reply = await self._asker.ask("/v1/chat/completions/render", _chat(name, chat))
        if reply.status != 200:
            return SeenPrompt(refused=_refusal(reply))
        told = reply.json()
        tokens = tuple(told["tokens"]) if told["tokens"] is not None else None
        expected = None
        if tokens is not None and chat.expected is not None:
            expected = await self._tokens(name, chat.expected)
        return SeenPrompt(told["prompt"], tokens, expected)

    async def _tokens(self, name: str, text: str) -> tuple[int, ...] | None:
        """A text as the engine splits it, nothing added; None where it does not tell."""
        body = {"model": name, "prompt": text, "add_special_tokens": False}
        reply = await self._asker.ask("/v1/tokenize", body)
        return tuple(reply.json()["tokens"]) if reply.status == 200 else None

    async def _answer(self, name: str, chat: ChatQuestion, max_tokens: int) -> SeenAnswer:
        greedy = {**_chat(name, chat), "temperature": 0, "seed": 0, "max_tokens": max_tokens}
        path = "/v1/chat/completions"
        reply = await self._asker.ask(path, {**greedy, "logprobs": True, "top_logprobs": _TOP})
        if reply.status == 400:  # an engine may not tell how likely its tokens were
            reply = await self._asker.ask(path, greedy)
        return answer_of(reply.json()) if reply.status == 200 else SeenAnswer(refused=_refusal(reply))

    async def _stop(self, served: _Served, text: str) -> SeenStop:
        """Make the engine write that text, and see whether it ends there."""
        if text in (served.rules.overrides.get("stop") or served.rules.defaults.get("stop") or ()):
            return SeenStop(ends=True)
        if text in (served.account.stops or ()):
            return SeenStop(ends=True)
        tokens = await self._tokens(served.name, text)
        if tokens is None:
            return SeenStop(why="the engine does not tell its tokens, so that it cannot be made to write one")
        if len(tokens) != 1:
            return SeenStop(why=f"{text!r} is {len(tokens)} tokens, and no `stop` of the model's `defaults` names it")
        body = {
            **_chat(served.name, ChatQuestion([{"role": "user", "content": "Hi"}])),
            "temperature": 0,
            "max_tokens": _STOP_TOKENS,
            "logit_bias": {str(tokens[0]): _FORCING},
        }
        reply = await self._asker.ask("/v1/chat/completions", body)
        if reply.status != 200:
            return SeenStop(why=_refusal(reply))
        return SeenStop(ends=answer_of(reply.json()).finish == "stop")

    async def _context(self, served: _Served, asked: int | None) -> SeenContext:
        facts = served.row.fact(served.target.model)
        claimed = facts.context_length if facts is not None else None
        of_model = served.disk.context_length if served.disk is not None else None
        seen = SeenContext(claimed=claimed, of_model=of_model)
        tokens = await self._tokens(served.name, "a") if asked is not None else None
        if not tokens:
            return seen
        if claimed is not None and claimed <= MOST_CONTEXT:
            taken = await self._takes(served.name, tokens[0], claimed + 1)
            seen = msgspec.structs.replace(seen, refuses_more=None if taken is None else not taken)
        if asked and asked <= MOST_CONTEXT:
            takes = await self._takes(served.name, tokens[0], asked - 1)
            seen = msgspec.structs.replace(seen, asked=asked - 1, takes=takes)
        return seen

    async def _takes(self, name: str, token: int, length: int) -> bool | None:
        """Whether a prompt of so many tokens is taken; None where something else is wrong with it."""
        body = {"model": name, "prompt": [token] * length, "max_tokens": 1, "temperature": 0}
        reply = await self._asker.ask("/v1/completions", body)
        if reply.status == 200:
            return True
        error = (reply.json() or {}).get("error") or {}
        return False if error.get("code") == _TOO_LONG else None

    # -- what it draws with

    async def _sampling(self, served: _Served) -> SeenSampling:
        told = served.account.sampling or (served.disk.sampling if served.disk is not None else None)
        seen = SeenSampling(
            dict(told) if told is not None else None, dict(served.rules.defaults), dict(served.rules.overrides)
        )
        used = effective(Observation(served.name, served.row.name, served.row.kind, "", sampling=seen))
        return msgspec.structs.replace(
            seen, is_so=await self._is_so(served.name, used), obeys=await self._obeys(served.name)
        )

    async def _is_so(self, name: str, used: Mapping[str, float] | None) -> bool | None:
        """Whether an answer without parameters is the one with these, drawn with the same seed."""
        if used is None:
            return None
        spelled, bare = await self._draw(name, used), await self._draw(name, {})
        if spelled is None or bare is None:
            return None
        if spelled.text == bare.text:
            return True
        # The first one met an empty prompt cache, which may round otherwise than a filled one: it counts no more. The
        # same seed must give the same answer twice, or it says nothing.
        again = [await self._draw(name, each) for each in (used, {}, used)]
        told = [each.text for each in again if each is not None]
        if len(told) < len(again):
            return None
        if told[0] == told[1]:
            return True
        return False if told[0] == told[2] and told[1] == bare.text else None

    async def _obeys(self, name: str) -> bool | None:
        """Whether a client's top_p decides anything. An answer that ends by itself may be too clear to show it."""
        for seed in (7, 8):
            wide = await self._draw(name, {"temperature": 1.5, "top_p": 1.0, "seed": seed})
            narrow = await self._draw(name, {"temperature": 1.5, "top_p": 0.01, "seed": seed})
            if wide is not None and narrow is not None and wide.text != narrow.text:
                # With a prompt cache that was empty the first time, it may be other for that alone.
                wide = await self._draw(name, {"temperature": 1.5, "top_p": 1.0, "seed": seed})
            if wide is None or narrow is None or wide.text != narrow.text:
                return None if wide is None or narrow is None else True
            if wide.finish != "length":
                return None
        return False

    async def _draw(self, name: str, parameters: Mapping[str, float]) -> SeenAnswer | None:
        sent = {key: int(value) if key in ("top_k", "seed") else value for key, value in parameters.items()}
        reply = await self._asker.ask("/v1/chat/completions", {"model": name, **_DRAWN, **sent})
        return answer_of(reply.json()) if reply.status == 200 else None

    async def _file(self, served: _Served, *, hashes: bool) -> SeenFile:
        disk, account = served.disk, served.account
        if disk is None:
            return SeenFile(sha256=account.sha256, has_template=account.has_template)
        digest = None
        if hashes:
            with contextlib.suppress(OSError):
                digest = await asyncio.to_thread(weights_digest, disk.weights)
        return SeenFile(
            path=str(disk.weights[0] if len(disk.weights) == 1 else disk.weights[0].parent) if disk.weights else None,
            sha256=digest,
            source=disk.source,
            has_template=disk.has_template,
            template_is_given=disk.template_is_given,
            bos=disk.bos,
            bos_text=disk.bos_text,
        )


async def _account(before: Preflight, endpoint: Endpoint, model: str) -> EngineAccount:
    """What the engine says of the model, past the gateway."""
    request = before.account_request(model)
    if request is None:
        return EngineAccount()
    path, body = request
    url = f"{endpoint.address.removesuffix('/v1')}{path}"
    client = ProbeClient(endpoint.engine)
    reply = await client.ask(url, endpoint.headers, timeout_s=ASK_S, body=body, dial=endpoint.dial)
    return before.account(reply.json()) if reply.status == 200 else EngineAccount()


def answer_of(completion: Any) -> SeenAnswer:
    """A chat's response in OpenAI's words as an answer, with its tokens where it tells them."""
    choice = completion["choices"][0]
    message = choice["message"]
    tokens = (choice.get("logprobs") or {}).get("content") or ()
    return SeenAnswer(
        text=(message.get("reasoning") or message.get("reasoning_content") or "") + (message.get("content") or ""),
        tokens=tuple(
            SeenToken(
                each["token"],
                each["logprob"],
                tuple(Candidate(one["token"], one["logprob"]) for one in each.get("top_logprobs") or ()),
            )
            for each in tokens
        ),
        finish=choice.get("finish_reason"),
    )


def _chat(name: str, chat: ChatQuestion) -> dict[str, Any]:
    tools = {"tools": chat.tools} if chat.tools else {}
    return {"model": name, "messages": chat.messages, **tools}


def _refusal(reply: Reply) -> str:
    error = (reply.json() or {}).get("error") or {}
    return str(error.get("message") or f"status {reply.status}")
