"""Training data as questions: Alpaca, ShareGPT, and conversations in OpenAI's shape, as LLaMA-Factory reads them. The
answer that a model was trained on is the reference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.comparison.formats.record import RecordProblem, category_of, text_of, without_thinking
from app.comparison.question import Question, plain_text

_ROLES: Final = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
}
_TOOLS: Final = frozenset({"tool", "observation", "function_call", "function", "function_response"})


def alpaca(members: Mapping[str, Any], name: str) -> Question:
    """`instruction`, `input` (follows on a new line), `output`, `system`, `history`. Of preferences (`chosen`), the
    chosen answer. Raises RecordProblem.
    """
    asked = "\n".join(text for text in (text_of(members, "instruction"), text_of(members, "input")) if text)
    if not asked:
        raise RecordProblem("its instruction is empty")
    messages: list[dict[str, Any]] = []
    if system := text_of(members, "system"):
        messages.append({"role": "system", "content": system})
    for turn in _listed(members.get("history"), "history"):
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(each, str) for each in turn):
            raise RecordProblem("its history is not a list of pairs of texts")
        messages += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    messages.append({"role": "user", "content": asked})
    reference = text_of(members, "output", "chosen")
    return Question(
        name,
        tuple(messages),
        (without_thinking(reference) or None) if reference else None,
        category=category_of(members, "label"),
    )


def conversation(members: Mapping[str, Any], name: str) -> Question:
    """`conversations` (`from`, `value`) or `messages` (`role`, `content`), and a `system` beside them: the last turn of
    the user with all before it is asked, the turn after it is the reference. Raises RecordProblem.
    """
    turns = _listed(members.get("conversations") or members.get("conversation") or members.get("messages"), "turns")
    messages: list[dict[str, Any]] = []
    if (system := text_of(members, "system")) is not None:
        messages.append({"role": "system", "content": system})
    messages += [message for turn in turns if (message := _message(turn)) is not None]
    asked = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=None)
    if asked is None:
        raise RecordProblem("nobody asks anything in it")
    if _is_blank(messages[asked]["content"]):
        raise RecordProblem("its question is empty")
    reference = plain_text(messages[asked + 1]["content"]) if asked + 1 < len(messages) else ""
    if not reference and isinstance(chosen := members.get("chosen"), dict):
        reference = text_of(chosen, "value", "content") or ""
    return Question(
        name,
        tuple(messages[: asked + 1]),
        without_thinking(reference) or None,
        category=category_of(members),
    )


def _is_blank(content: Any) -> bool:
    """Whether nothing is asked: an empty text, or parts without a text and without anything else."""
    if isinstance(content, list):
        return not any(part.get("type") != "text" or plain_text([part]).strip() for part in content)
    return not f"{content}".strip()


def _listed(value: Any, what: str) -> Sequence[Any]:
    """A list, also as JSON within a text, as tables have it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as exc:
            raise RecordProblem(f"its {what} are not JSON") from exc
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RecordProblem(f"its {what} are not a list")
    return value


def _message(turn: Any) -> dict[str, Any] | None:
    """A turn in OpenAI's shape; None for a turn that says nothing (an empty system message)."""
    if not isinstance(turn, dict):
        raise RecordProblem("a turn is not an object")
    speaker = turn.get("from", turn.get("role"))
    content = turn.get("value", turn.get("content"))
    if not isinstance(speaker, str):
        raise RecordProblem("a turn does not say who it is from")
    if speaker in _TOOLS or turn.get("tool_calls"):
        raise RecordProblem("it has calls of tools, and only texts are compared")
    role = _ROLES.get(speaker)
    if role is None:
        raise RecordProblem(f"a turn is from {speaker!r}, who is not known")
    if isinstance(content, list) and not all(isinstance(part, dict) for part in content):
        raise RecordProblem(f"a turn of {speaker!r} has parts that are not objects")
    if isinstance(content, list) and role == "user":
        return {"role": role, "content": content}
    if isinstance(content, list):
        content = plain_text(content)
    if not isinstance(content, str):
        raise RecordProblem(f"a turn of {speaker!r} is not a text")
    if role == "system" and not content.strip():
        return None
    return {"role": role, "content": without_thinking(content) if role == "assistant" else content}
