"""How LLaMA-Factory's tool formats are written in Jinja: the tools in the system prompt, and a model's calls. Pure.

The long instructions are not kept here: LLaMA-Factory is asked for them (`child.py`: its text for PROBES, one tool and
two), and only how a tool is written inside them is known. What comes out is held against LLaMA-Factory's own encoding,
so a format that has changed is refused, not served wrongly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.reference.jinja_text import each, indented, literal, put, refuse, say, when

# Tools that the instructions are found by: their names occur nowhere else.
PROBES: Final[tuple[Mapping[str, Any], ...]] = tuple(
    {"name": name, "description": "", "parameters": {"type": "object", "properties": {}}}
    for name in ("probeone", "probetwo")
)
AS_IT_CAME: Final = ""  # no format: the list of tools as JSON
PROBE_DAY: Final = "2031-03-07"  # the day on which they are asked for
_DATE: Final = "07 Mar 2031"
_DATE_FORMAT: Final = "%d %b %Y"

_FUNCTION: Final = "function"  # the variable with the tool, or with the function that is called
_ARGUMENTS: Final = "(function['arguments'] if function['arguments'] is string else function['arguments'] | tojson)"
_NAME: Final = "function['name']"
_JSON_CALL: Final = f"""'{{"name": ' + (function['name'] | tojson) + ', "arguments": ' + {_ARGUMENTS} + '}}'"""


class NotExpressible(Exception):
    """It cannot be said in Jinja: a part of a sentence."""


@dataclass(frozen=True, slots=True)
class _Tools:
    """How a format writes tools. `sample`: one tool's text, as LLaMA-Factory writes a probe; `lines`: Jinja that says
    it, from the variable `function`; `between`: what stands between two.
    """

    sample: Callable[[Mapping[str, Any]], str]
    lines: Sequence[str]
    between: str = ""


def _wrapped(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "function", "function": tool}


def _dumped(tool: Mapping[str, Any], indent: int | None = None) -> str:
    return json.dumps(tool, ensure_ascii=False, indent=indent)


_BARE: Final = _Tools(_dumped, [say("function | tojson")])
_WRAPPED: Final = """'{"type": "function", "function": ' + (function | tojson) + '}'"""
_WHOLE: Final = _Tools(lambda tool: _dumped(_wrapped(tool)), [say(_WRAPPED)])
_WHOLE_INDENTED: Final = _Tools(
    lambda tool: _dumped(_wrapped(tool), 4), [say("{'type': 'function', 'function': function} | tojson(indent=4)")]
)


def _tools(base: _Tools, before: str = "", after: str = "", between: str = "") -> _Tools:
    """Each tool with something around it."""
    return _Tools(
        lambda tool: before + base.sample(tool) + after,
        [say(literal(before)), *base.lines, say(literal(after))],
        between,
    )


def _default_lines() -> list[str]:
    about = [
        put("wanted", "', required' if name in (function['parameters']['required'] or []) else ''"),
        put("choice", "', should be one of [' + (value['enum'] | join(', ')) + ']' if value['enum'] else ''"),
        put(
            "items",
            "', where each item should be ' + (value['items']['type'] or '') if value['items'] is mapping else ''",
        ),
        say(
            "'  - ' + name + ' (' + (value['type'] or '') + wanted + '): ' + (value['description'] or '')",
            "choice",
            "items",
            r"'\n'",
        ),
    ]
    return [
        say(literal("> Tool Name: "), _NAME, literal("\nTool Description: ")),
        say("(function['description'] or '')", literal("\nTool Args:\n")),
        *each("name, value", "function['parameters']['properties'].items()", about),
        say(literal("\n")),
    ]


def _gemma4_lines() -> list[str]:
    quote = '<|"|>'
    about = [
        say("('' if loop.first else ',') + name + ':{'"),
        *when(
            ("value['description']", [say(literal(f"description:{quote}"), "value['description']", literal(quote))]),
        ),
        *when(("value['description'] and value['type']", [say("','")])),
        *when(("value['type']", [say(literal(f"type:{quote}"), "value['type'] | upper", literal(quote))])),
        say("'}'"),
    ]
    required = [say("('' if loop.first else ',') + " + literal(quote) + " + name + " + literal(quote))]
    return [
        say("'declaration:'", _NAME, literal("{description:" + quote), "(function['description'] or '')"),
        say(literal(quote)),
        *when(
            (
                "function['parameters']",
                [
                    put("parameters", "function['parameters']"),
                    put("comma", "''"),
                    say("',parameters:{'"),
                    *when(
                        (
                            "parameters['properties']",
                            [
                                say("'properties:{'"),
                                *each("name, value", "parameters['properties'].items()", about),
                                say("'}'"),
                                put("comma", "','"),
                            ],
                        )
                    ),
                    *when(
                        (
                            "parameters['required']",
                            [
                                say("comma + 'required:['"),
                                *each("name", "parameters['required']", required),
                                say("']'"),
                                put("comma", "','"),
                            ],
                        )
                    ),
                    *when(
                        (
                            "parameters['type']",
                            [say("comma", literal(f"type:{quote}"), "parameters['type'] | upper", literal(quote))],
                        )
                    ),
                    say("'}'"),
                ],
            )
        ),
        say("'}'"),
    ]


def _default_sample(tool: Mapping[str, Any]) -> str:
    return f"> Tool Name: {tool['name']}\nTool Description: \nTool Args:\n\n"


def _gemma4_sample(tool: Mapping[str, Any]) -> str:
    return f'declaration:{tool["name"]}{{description:<|"|><|"|>,parameters:{{type:<|"|>OBJECT<|"|>}}}}'


def _glm4() -> _Tools:
    after = "\n在调用上述函数时，请使用 Json 格式表示调用的参数。"
    return _Tools(
        lambda tool: f"\n\n## {tool['name']}\n\n{_dumped(tool, 4)}{after}",
        [say(literal("\n\n## "), _NAME, literal("\n\n"), "function | tojson(indent=4)", literal(after))],
    )


_TOOLS: Final[Mapping[str, _Tools]] = {
    "default": _Tools(_default_sample, _default_lines()),
    "gemma4": _Tools(_gemma4_sample, _gemma4_lines(), "\n"),
    "glm4": _glm4(),
    "llama3": _tools(_WHOLE_INDENTED, after="\n\n"),
    "lfm2": _tools(_BARE, between=", "),
    "minimax1": _tools(_BARE, after="\n"),
    "minimax2": _tools(_BARE, "<tool>", "</tool>\n"),
    "mistral": _tools(_WHOLE, between=", "),
    "qwen": _tools(_WHOLE, "\n"),
    "qwen3_5": _tools(_BARE, "\n"),
    "glm4_moe": _tools(_WHOLE, "\n"),
    "seed_oss": _tools(_BARE, between=", "),
    "ling": _tools(_WHOLE, "\n"),
    AS_IT_CAME: _tools(_BARE, between=", "),
}


def tools_lines(tool_format: str, instructions: Sequence[str]) -> list[str]:
    """Jinja lines that say the instructions with all `tools`. `instructions`: LLaMA-Factory's for PROBES, one and both.
    Raises NotExpressible.
    """
    known = _TOOLS.get(tool_format)
    if known is None:
        raise NotExpressible(f"its tool format {tool_format!r} is not known here")
    one, both = (known.sample(probe) for probe in PROBES)
    head, place, tail = instructions[0].partition(one)
    if not place or not instructions[1].startswith(head + one + known.between + both):
        raise NotExpressible(f"its tool format {tool_format!r} writes tools in another way than is known here")
    lines = [
        put(_FUNCTION, "tool['function'] if tool['function'] is mapping else tool"),
        *known.lines,
        *([*when(("not loop.last", [say(literal(known.between))]))] if known.between else []),
    ]
    return [*_words(head), *each("tool", "tools", lines), *_words(tail)]


def _words(text: str) -> list[str]:
    """Instructions with the date of the day and the names of all tools in their places."""
    lines: list[str] = []
    names = each("tool", "tools", [*when(("not loop.first", [say("', '")])), say("tool['function']['name']")])
    before, date, after = text.partition(_DATE)
    if date:
        return [*_words(before), say(f"strftime_now({literal(_DATE_FORMAT)})"), *_words(after)]
    before, name, after = text.partition(PROBES[0]["name"])
    if name:
        return [*_words(before), *names, *_words(after)]
    return [say(literal(text))] if text else lines


def _items(before: str, name_end: str, value_start: str, value_end: str) -> list[str]:
    """Each argument: its name, and its value as it is where it is text, else as JSON."""
    return each(
        "name, value",
        "function['arguments'].items()",
        [
            say(literal(before), "name", literal(name_end + value_start)),
            say("(value if value is string else value | tojson)", literal(value_end)),
        ],
    )


def _python_call() -> list[str]:
    value = """('"' + value + '"' if value is string else value | tojson)"""
    inner = each(
        "name, value",
        "function['arguments'].items()",
        [say("('' if loop.first else ', ') + name + '=' + " + value)],
    )
    return [say(_NAME + " + '('"), *inner, say("')'")]


_GEMMA4_VALUE: Final = [
    "{%- macro gemma_value(value) -%}",
    *indented(
        when(
            ("value is string", [say(literal('<|"|>'), "value", literal('<|"|>'))]),
            ("value is boolean or value is none", [say("value | tojson")]),
            (
                "value is mapping",
                [
                    say("'{'"),
                    *each(
                        "name, inner",
                        "value | dictsort(true)",
                        [say("('' if loop.first else ',') + name + ':' + gemma_value(inner)")],
                    ),
                    say("'}'"),
                ],
            ),
            (
                "value is iterable",
                [
                    say("'['"),
                    *each("inner", "value", [say("('' if loop.first else ',') + gemma_value(inner)")]),
                    say("']'"),
                ],
            ),
            otherwise=[say("value | tojson")],
        )
    ),
    "{%- endmacro -%}",
]


def _gemma4_call() -> list[str]:
    inner = each(
        "name, value",
        "function['arguments'] | dictsort(true)",
        [say("('' if loop.first else ',') + name + ':' + gemma_value(value)")],
    )
    # In two pieces: where it finds them in one, llama.cpp rewrites the conversation for its own parser of calls.
    return [say("'<|tool_call>' + 'call:' + function['name'] + '{'"), *inner, say("'}<tool_call|>'")]


@dataclass(frozen=True, slots=True)
class _Calls:
    """How a format writes calls: `lines` say one, from the variable `function`."""

    lines: Sequence[str]
    between: str = "\n"
    before: str = ""
    after: str = ""
    only_one: bool = False
    one_without: tuple[str, str] | None = None  # what stands around several, but not around one
    needed: Sequence[str] = ()  # macros


def _llama3_call() -> list[str]:
    return [say("""'{"name": ' + (function['name'] | tojson) + ', "parameters": ' + """ + _ARGUMENTS + " + '}'")]


_QWEN_CALL: Final = _Calls([say(literal("<tool_call>\n"), _JSON_CALL, literal("\n</tool_call>"))])
_CALLS: Final[Mapping[str, _Calls]] = {
    "default": _Calls([say("'Action: '", _NAME, literal("\nAction Input: "), _ARGUMENTS)]),
    "gemma4": _Calls(_gemma4_call(), between="", needed=_GEMMA4_VALUE),
    "glm4": _Calls([say(_NAME, literal("\n"), _ARGUMENTS)], only_one=True),
    "llama3": _Calls(_llama3_call(), between=", ", one_without=("[", "]")),
    "lfm2": _Calls(_python_call(), between=", ", before="<|tool_call_start|>[", after="]<|tool_call_end|>"),
    "minimax1": _Calls([say(_JSON_CALL)], before="<tool_calls>\n", after="\n</tool_calls>"),
    "minimax2": _Calls(
        [
            say(literal('<invoke name="'), _NAME, literal('">')),
            *_items('\n<parameter name="', '">', "", "</parameter>"),
            say(literal("\n</invoke>")),
        ]
    ),
    "mistral": _Calls([say(_JSON_CALL)], between=", ", before="[", after="]"),
    "qwen": _QWEN_CALL,
    "ling": _QWEN_CALL,
    "qwen3_5": _Calls(
        [
            say(literal("<tool_call>\n<function="), _NAME, literal(">")),
            *_items("\n<parameter=", ">", "\n", "\n</parameter>"),
            say(literal("\n</function>\n</tool_call>")),
        ]
    ),
    "glm4_moe": _Calls(
        [
            say(literal("\n<tool_call>"), _NAME),
            *_items("\n<arg_key>", "</arg_key>", "\n<arg_value>", "</arg_value>"),  # and no closing word
        ]
    ),
    "seed_oss": _Calls(
        [
            say(literal("\n<seed:tool_call>\n<function="), _NAME),  # and no ">"
            *_items("\n<parameter=", ">", "", "</parameter>"),
            say(literal("\n</function>\n</seed:tool_call>")),
        ]
    ),
}


def call_lines(tool_format: str, before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Jinja lines that say all calls of a `message`, between expressions. Raises NotExpressible."""
    known = _CALLS.get(tool_format)
    if known is None:
        raise NotExpressible(f"its tool format {tool_format!r} is not known here")
    several = "message['tool_calls'] | length > 1"
    start, end = known.one_without or ("", "")
    inner = [
        put(_FUNCTION, "call['function'] if call['function'] is mapping else call"),
        *known.lines,
        *(when(("not loop.last", [say(literal(known.between))])) if known.between else []),
    ]
    return [
        *(when((several, [refuse("the template takes one call of a tool at a time")])) if known.only_one else []),
        say(*before, literal(known.before)),
        *(when((several, [say(literal(start))])) if start else []),
        *each("call", "message['tool_calls']", inner),
        *(when((several, [say(literal(end))])) if end else []),
        say(literal(known.after), *after),
    ]


def macros(tool_format: str) -> list[str]:
    """What must stand before the first use of a format's lines."""
    known = _CALLS.get(tool_format)
    return list(known.needed) if known else []
