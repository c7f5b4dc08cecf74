"""What engines do besides writing text: rerank, score, tokenize and detokenize, in vLLM's shape whatever the engine.

Pure: a task is a generator that yields requests to one engine, is sent their responses, and returns the client's.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.dialects import json_members
from app.dialects.error_text import one_line
from app.dialects.openai.stream_reader import renaming
from app.dialects.tasks.evaluation import evaluated, not_allowed
from app.dialects.tasks.llama_cpp import (
    Done,
    Prompt,
    Stamp,
    Step,
    Steps,
    TokenIds,
    decoded,
    described,
    detokenized,
    invalid_token,
    ranked,
    scored,
    step,
    tokenized,
)
from app.dialects.tasks.requests import Describing, Detokenizing, Evaluating, Ranking, Scoring, Task, Tokenizing
from app.dialects.usage import Usage, tokens
from backends.engine_profile import EngineProfile, TaskApi, TemplateApi
from backends.errors import BackendError, Broken, Rejected, Unsupported
from backends.prompt_too_long import failed

# vLLM's route: the path, whether that lies beside `/v1`, and the fields that its response must have.
_VLLM: Final[dict[str, tuple[str, bool, tuple[str, ...]]]] = {
    "rerank": ("/rerank", False, ("results",)),
    "score": ("/score", False, ("data",)),
    "tokenize": ("/tokenize", True, ("tokens", "count")),
    "detokenize": ("/detokenize", True, ("prompt",)),
    "tokenizer_info": ("/tokenizer_info", True, ("tokenizer_class",)),
}
_READ: Final = frozenset({"tokenizer_info"})  # by GET
_DOES: Final = {
    "rerank": "rank texts",
    "score": "score texts",
    "transcription": "transcribe speech",
    "tokenizer_info": "tell what its tokenizer is",
}


class _Count(msgspec.Struct, frozen=True):
    count: int


def steps(task: Task, profile: EngineProfile, *, engine: str, model: str, name: str, stamp: Stamp) -> Steps:
    """How such an engine is asked for its `model`; the response says `name`. Unsupported where it cannot be asked."""
    if isinstance(task.asked, Evaluating):
        if profile.tasks is not TaskApi.SAME_ROUTES:
            raise not_allowed(engine)
        return evaluated(task.asked, engine, model, name, stamp)
    if profile.tasks is TaskApi.SAME_ROUTES:
        return _by_same_route(task, engine, model, name)
    if profile.tasks is not TaskApi.LLAMA_SERVER:
        raise unsupported(engine, task.operation, profile, name)
    match task.asked:
        case Ranking() as ranking:
            return ranked(ranking, engine, name, stamp)
        case Scoring() as scoring:
            return scored(scoring, engine, name, stamp)
        case Tokenizing() as tokenizing:
            return tokenized(task, tokenizing, engine)
        case Detokenizing() as detokenizing:
            return detokenized(detokenizing, engine)
        case Describing():
            return described(engine)


def unsupported(engine: str, operation: str, profile: EngineProfile, name: str) -> Unsupported:
    """The error for what the engine behind a name cannot do at all."""
    does = _DOES.get(operation, "tokenize texts")
    can = f"What its engine can do ({profile.kind}): {profile.abilities}"
    return Unsupported(engine, f"'{name}' does not {does}. {can}.", param="model")


def refused(
    engine: str, operation: str, profile: EngineProfile, name: str, status: int, body: bytes
) -> BackendError | None:
    """The error for an engine's refusal of such a task; None where it means the same as for any other request."""
    if status in (405, 501) or (status == 404 and not _is_of_model(body)):
        if operation == "evaluation":
            return not_allowed(engine)
        return unsupported(engine, operation, profile, name)
    if status == 500 and operation == "detokenize" and b"range_check" in body:
        return invalid_token(engine)
    return None


def _is_of_model(body: bytes) -> bool:
    """Whether a 404 speaks of the model (vLLM: `NotFoundError`) and not of the route (`{"detail": "Not Found"}`)."""
    return b"NotFoundError" in body or b"model_not_found" in body


# -- by vLLM's routes


def _by_same_route(task: Task, engine: str, model: str, name: str) -> Steps:
    path, is_beside, needs = _VLLM[task.operation]
    body = b"" if task.operation in _READ else msgspec.json.encode({"model": model, **task.fields})
    answer = yield Step(path, body, is_beside)
    try:
        members = json_members.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Broken(engine, "it sent what is not a JSON answer") from exc
    if "error" in members and needs[0] not in members:
        error = msgspec.json.decode(members["error"])
        raise failed(engine, error, one_line(error))
    if any(field not in members for field in needs):
        raise Broken(engine, "it sent JSON that is not an answer to this request")
    if "model" in members:
        its_name = msgspec.json.decode(members["model"])
        rename = renaming(answer, its_name, name) if isinstance(its_name, str) else None
        answer = answer.replace(*rename, 1) if rename else answer
    return Done(answer, _cost(members.get("usage")))


def _cost(usage: msgspec.Raw | None) -> Usage:
    counted = tokens(msgspec.json.decode(usage)) if usage is not None else None
    return Usage(counted.prompt_tokens) if counted is not None else Usage()


# -- how long a conversation is


_RELEVANT = ("messages", "tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")


class _Message(msgspec.Struct, frozen=True):
    content: Any = None


_conversations = msgspec.json.Decoder(list[_Message])


def _has_pictures(messages: msgspec.Raw) -> bool:
    """Whether a part of a message is not text. A tool's parameters may be called anything, so only messages count."""
    contents = [message.content for message in _conversations.decode(messages)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return any(isinstance(part, dict) and part.get("type") not in ("text", "refusal") for part in parts)


def count(body: bytes, profile: EngineProfile, engine: str) -> Steps:
    """How many tokens a chat in OpenAI's words has, in the shape of Anthropic's response; Rejected (501) for an engine
    that cannot count them."""
    fields = json_members.decode(body)
    can = profile.templates in (TemplateApi.TOKENIZE, TemplateApi.APPLY_TEMPLATE)
    if not can or _has_pictures(fields["messages"]):
        what = "the tokens of pictures" if can else "tokens"
        message = f"The engine behind this name cannot count {what}."
        raise Rejected(engine, message, status=501, type_="invalid_request_error", code="not_supported")
    chat = {name: fields[name] for name in _RELEVANT if name in fields}
    if profile.templates is TemplateApi.TOKENIZE:
        counted = yield step("/tokenize", {"model": fields["model"], **chat})
        number = decoded(engine, counted, _Count).count
    else:
        prompt = decoded(engine, (yield step("/apply-template", chat)), Prompt).prompt
        asks = {"content": prompt, "add_special": True, "parse_special": True}
        number = len(decoded(engine, (yield step("/tokenize", asks)), TokenIds).tokens)
    return Done(msgspec.json.encode({"input_tokens": number}))
