"""A chat template in Jinja that says what one of LLaMA-Factory's templates encodes. Pure.

What it is made from is the template as data (`child.py`: lists of slots, words, default system prompt). It is served
only where it was held against LLaMA-Factory's own encoding.

Beyond what training has: several user messages in a row are one turn; a later system message is refused, as by
LLaMA-Factory's own server; an answer's opening is part of the user's turn and always written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.reference.jinja_text import each, indented, literal, put, refuse, say, slots, when
from app.reference.tool_formats import AS_IT_CAME, NotExpressible, call_lines, macros, tools_lines
from app.reference.turns import RESULTS_JOINED

_PLAIN: Final = "Template"
_FUSED: Final = "Llama2Template"  # the system prompt is part of the first user's turn
_REASONING: Final = {"ReasoningTemplate", "Glm47ReasoningTemplate"}
_KNOWN: Final = {_PLAIN, _FUSED, *_REASONING}
_NO_TOOLS: Final = "this model's chat template was trained with tools in a form that cannot be served"
_LATE_SYSTEM: Final = "a system message can only be the first"
_TEXT: Final = "state.text"  # the turn that is being put together


def chat_template(described: Mapping[str, Any], *, with_tools: bool = True) -> str:
    """The chat template. `with_tools`: else it refuses conversations with tools. Raises NotExpressible."""
    unknown = [name for name in described["classes"] if name not in _KNOWN]
    if unknown:
        raise NotExpressible(f"it is of a kind that is not known here ({unknown[0]})")
    builder = _Builder(described, with_tools)
    return "\n".join(line for line in builder.lines() if line)


class _Builder:
    def __init__(self, described: Mapping[str, Any], with_tools: bool) -> None:
        self._described = described
        self._with_tools = with_tools
        self._formats: Mapping[str, Mapping[str, Any]] = described["formats"]
        self._special = {"bos_token": described["bos"], "eos_token": described["eos"]}
        self._is_fused = _FUSED in described["classes"]
        self._is_reasoning = bool(_REASONING & set(described["classes"]))

    def lines(self) -> list[str]:
        """The whole template."""
        return [
            *(macros(self._formats["function"]["tool_format"]) if self._with_tools else []),
            *self._conversation(),
            say(*self._slots("prefix", None)),
            *self._system(),
            put("state", f"namespace(text={'opening' if self._is_fused else literal('')})"),
            *each("message", "turns", self._turn()),
            *self._no_thought(),
        ]

    def _slots(self, name: str, content: str | None) -> list[str]:
        return slots(self._formats[name]["slots"], self._special, content)

    def _conversation(self) -> list[str]:
        """`system`: the system prompt, with the default in place of an empty one; `turns`: everything else."""
        default = self._described["default_system"] or ""
        return [
            put("system", literal("")),
            put("turns", "messages"),
            *when(
                (
                    "messages and messages[0]['role'] == 'system'",
                    [put("system", "messages[0]['content'] or ''"), put("turns", "messages[1:]")],
                )
            ),
            *(when(("not system", [put("system", literal(default))])) if default else []),
        ]

    def _system(self) -> list[str]:
        """Says the system prompt with the tools; a fused one becomes `opening`, which the first turn begins with."""
        if not self._with_tools:
            tools = [refuse(_NO_TOOLS)]
        else:
            tools = tools_lines(self._formats["tools"]["tool_format"] or AS_IT_CAME, self._described["instructions"])
        parts = self._formats["system"]["slots"]
        # A fused one counts as far as its first slot.
        expressions = slots(parts[:1] if self._is_fused else parts, self._special, "system")
        at = expressions.index("system")
        said = [say(*expressions[: at + 1]), *when(("tools", tools)), say(*expressions[at + 1 :])]
        lines = when(("system or tools", said))
        return ["{%- set opening -%}", *indented(lines), "{%- endset -%}"] if self._is_fused else lines

    def _turn(self) -> list[str]:
        content = "message['content'] or ''"
        assistant = [
            put("content", content),
            *self._without_thought(),
            say(*self._slots("assistant", "content")),
        ]
        calls = self._slots("function", "CALLS")
        at = calls.index("CALLS")
        if self._with_tools:
            called = call_lines(self._formats["function"]["tool_format"], calls[:at], calls[at + 1 :])
        else:
            called = [refuse(_NO_TOOLS)]
        return [
            put("following", "turns[loop.index0 + 1]['role'] if not loop.last else ''"),
            *when(
                ("message['role'] == 'user'", self._joined("user", content, "\n\n")),
                ("message['role'] == 'tool'", self._joined("tool", content, RESULTS_JOINED)),
                ("message['role'] == 'assistant' and message['tool_calls']", called),
                ("message['role'] == 'assistant'", assistant),
                otherwise=[refuse(_LATE_SYSTEM)],
            ),
        ]

    def _joined(self, role: str, content: str, between: str) -> list[str]:
        """Messages of one role that follow on each other are one turn."""
        slot = "user" if role == "user" else "observation"
        return [
            put(_TEXT, f"{_TEXT} + ({content})"),
            *when(
                (f"following == {literal(role)}", [put(_TEXT, f"{_TEXT} + {literal(between)}")]),
                otherwise=[say(*self._slots(slot, _TEXT)), put(_TEXT, literal(""))],
            ),
        ]

    def _without_thought(self) -> list[str]:
        """Takes thoughts out of `content`: from each opening to the next closing word."""
        if not self._is_reasoning or self._described["preserve_thinking"]:
            return []
        opening, closing = map(literal, self._described["thought_words"])
        later = when(
            (
                f"{closing} in part",
                [
                    put("thought.kept", f"thought.kept + (part.split({closing})[1:] | join({closing}))"),
                    put("thought.held", literal("")),
                ],
            ),
            otherwise=[put("thought.held", f"thought.held + {opening} + part")],
        )
        removed = [
            put("thought", "namespace(kept='', held='')"),
            *each(
                "part",
                f"content.split({opening})",
                when(("loop.first", [put("thought.kept", "part")]), otherwise=later),
            ),
            put("content", r"(thought.kept + thought.held).lstrip('\n')"),
        ]
        reasoning = "message['reasoning_content']"
        whole = [put("content", f"{opening} + {reasoning} + {closing} + content")]
        return when(("not loop.last", removed), (reasoning, whole))

    def _no_thought(self) -> list[str]:
        """The empty thought that an answer without one begins with: as trained, or where a client asks for it."""
        if not self._is_reasoning:
            return []
        empty = [say(literal(self._described["empty_thought"]))]
        if not self._described["enable_thinking"]:
            return empty
        return when(("enable_thinking is defined and not enable_thinking", empty))


def slot_texts(parts: Sequence[Any]) -> tuple[str, ...]:
    """The texts in a list of slots."""
    return tuple(part for part in parts if isinstance(part, str))
