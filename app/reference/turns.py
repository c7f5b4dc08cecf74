"""A conversation in OpenAI's shape as LLaMA-Factory's data has it: roles, calls of tools, results. Pure.

Source: its converter for data in OpenAI's format, and the rules of its own API server: turns alternate, a call is
JSON with `name` and `arguments`, several results in a row are one turn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from app.reference.chats import Chat

RESULTS_JOINED: Final = "\n</tool_response>\n<tool_response>\n"  # between the results of one turn


def job_chat(chat: Chat) -> dict[str, Any]:
    """What a child process is given of a chat: `messages` and `tools` for Jinja; `system`, `turns` and `tool_text` for
    LLaMA-Factory.
    """
    messages = [dict(message) for message in chat.messages]
    system = None
    if messages and messages[0]["role"] == "system":
        system, messages = messages[0]["content"], messages[1:]
    functions = [tool["function"] for tool in chat.tools]
    return {
        "messages": [dict(message) for message in chat.messages],
        "tools": [dict(tool) for tool in chat.tools],
        "system": system,
        "turns": _turns(messages),
        "tool_text": json.dumps(functions, ensure_ascii=False) if functions else None,
    }


def _turns(messages: list[dict[str, Any]]) -> list[dict[str, str]]:
    turns: list[dict[str, str]] = []
    for message in messages:
        if message["role"] == "tool":
            if turns and turns[-1]["role"] == "observation":
                turns[-1]["content"] += RESULTS_JOINED + message["content"]
            else:
                turns.append({"role": "observation", "content": message["content"]})
        elif message.get("tool_calls"):
            turns.append({"role": "function", "content": _calls(message["tool_calls"])})
        else:
            turns.append({"role": message["role"], "content": message["content"]})
    return turns


def _calls(calls: list[Mapping[str, Any]]) -> str:
    """As data has them: an object, or a list of several; the arguments are objects, not text."""
    functions = [
        {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])} for call in calls
    ]
    return json.dumps(functions[0] if len(functions) == 1 else functions, ensure_ascii=False)
