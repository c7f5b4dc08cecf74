"""The conversations that prompts are compared on, in OpenAI's shape. Pure data.

Each ends with the message that the model is to answer. What is odd about them is there because something goes wrong
with it: templates that trim, that drop or invent a system message, that rewrite earlier thoughts, that tell of tools in
other words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

# A call of a tool, as a model or a client writes it: the arguments are text. With the spaces that JSON's usual writers
# put there, as an engine may hand the text on as it came.
_ARGUMENTS: Final = '{"city": "Ulm", "days": 2}'


@dataclass(frozen=True, slots=True)
class Chat:
    """One conversation: `messages` and `tools` as a request of `/v1/chat/completions` has them."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()


def _said(*texts: str) -> tuple[Mapping[str, Any], ...]:
    """Turns of a user and of an assistant, from a user's on."""
    return tuple({"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts))


def _system(text: str) -> tuple[Mapping[str, Any], ...]:
    return ({"role": "system", "content": text},)


def _tool(name: str, description: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


_WEATHER: Final = _tool(
    "weather",
    "Tells the weather.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where?"},
            "days": {"type": "integer", "description": "For how many days?"},
        },
        "required": ["city"],
    },
)
_UNIT: Final = _tool(
    "unit",
    "Sets the unit 度.",
    {
        "type": "object",
        "properties": {
            "unit": {"type": "string", "enum": ["celsius", "kelvin"], "description": "Which?"},
            "places": {"type": "array", "items": {"type": "string"}, "description": "For which places?"},
        },
        "required": ["unit", "places"],
    },
)


def _call(*ids: str) -> Mapping[str, Any]:
    calls = [{"id": one, "type": "function", "function": {"name": "weather", "arguments": _ARGUMENTS}} for one in ids]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _result(text: str, call: str) -> Mapping[str, Any]:
    return {"role": "tool", "tool_call_id": call, "content": text}


CHATS: Final[Mapping[str, Chat]] = MappingProxyType(
    {
        "one turn": Chat(_said("What is a port?")),
        "system": Chat((*_system("Answer in one sentence."), *_said("What is a port?"))),
        "several turns": Chat(_said("Name a river.", "The Danube.", "And a town on it?", "Ulm.", "Which country?")),
        "spaces": Chat((*_system(" Be\nkind. "), *_said("  indented\n\n", "\n yes \n", " two  spaces "))),
        "Chinese": Chat((*_system("请用中文回答。"), *_said("长江有多长？", "约6300公里。", "黄河呢？"))),
        "emoji": Chat(_said("What does 👩‍🚀🏽 mean? <b>&amp;</b> 'quoted' \"twice\" {{x}} {% y %} \\n")),
        "thinking": Chat(_said("2+2?", "<think>\nTwo and two.\n</think>\n\n4", "And 3+3?")),
        "tools": Chat(_said("Weather in Ulm?"), (_WEATHER, _UNIT)),
        "tools and system": Chat((*_system("Be brief."), *_said("Weather in Ulm?")), (_WEATHER,)),
        "tool result": Chat(
            (*_said("Weather in Ulm?"), _call("call00001"), _result('{"sky": "晴 ☀"}', "call00001")), (_WEATHER,)
        ),
        "two calls": Chat(
            (
                *_said("Weather in Ulm, twice?"),
                _call("call00001", "call00002"),
                _result("fair", "call00001"),
                _result("still fair", "call00002"),
            ),
            (_WEATHER,),
        ),
        "after a tool": Chat(
            (
                *_system("Be brief."),
                *_said("Weather in Ulm?"),
                _call("call00001"),
                _result("fair", "call00001"),
                *_said("x", "Fair.", "And in Kiel?")[1:],
            ),
            (_WEATHER, _UNIT),
        ),
    }
)
