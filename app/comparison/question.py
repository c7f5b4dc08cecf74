"""A question that several models are asked, and what exactly they are sent for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Form = Literal["open", "choice", "true_false"]

LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # an option is called by its place


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and what is known of the right answer.

    `id`: within its file the only one. `messages`: in the shape of OpenAI's chat completions, the last one is the
    user's. `answer`: the reference; of an open question a text, of a choice the letters of all right options in the
    alphabet's order ("B", "AC"), of a true_false question "true" or "false"; None where there is none. `options`: of a
    choice, without their letters; the first one is A. `category`: a field or a tag.
    """

    id: str
    messages: tuple[Mapping[str, Any], ...]
    answer: str | None = None
    options: tuple[str, ...] = ()
    form: Form = "open"
    category: str | None = None

    @property
    def text(self) -> str:
        """What the user asks last, without images."""
        return plain_text(self.messages[-1].get("content"))


def plain_text(content: Any) -> str:
    """The text of a message's content, which is a text or a list of parts."""
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text")
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def is_chinese(text: str) -> bool:
    """Whether a text is to be treated as Chinese: at least as many Chinese characters as words of other scripts. Kana
    or Hangul make it Japanese or Korean, which have no spaces to rely on either and are treated alike.
    """
    dense = 0 if text.isascii() else sum(1 for char in text if is_dense(char))
    if not dense:
        return False
    others = len("".join(" " if is_dense(char) or not char.isalnum() else char for char in text).split())
    return dense >= others


def is_dense(char: str) -> bool:
    """Whether the character belongs to a script that writes without spaces between words, or with few of them."""
    code = ord(char)
    return (
        0x4E00 <= code <= 0x9FFF  # CJK unified ideographs
        or 0x3400 <= code <= 0x4DBF  # their extension A
        or 0x20000 <= code <= 0x3FFFF  # extensions B and later
        or 0xF900 <= code <= 0xFAFF  # compatibility ideographs
        or 0x3040 <= code <= 0x30FF  # kana
        or 0xAC00 <= code <= 0xD7AF  # Hangul
    )


def prompt(question: Question) -> list[dict[str, Any]]:
    """The messages that a model is sent: of a choice with the options, of every closed question with the instruction
    how to answer, in Chinese where the question is. An open question is sent as it is.
    """
    messages = [dict(message) for message in question.messages]
    tail = _tail(question)
    if not tail:
        return messages
    content = messages[-1].get("content")
    if isinstance(content, list):
        messages[-1]["content"] = [*content, {"type": "text", "text": tail}]
    else:
        messages[-1]["content"] = f"{content}\n\n{tail}"
    return messages


def truth_words(question: Question) -> tuple[str, str]:
    """What a model is told to say for true and for false."""
    return ("正确", "错误") if is_chinese(question.text) else ("true", "false")


def reference_text(question: Question) -> str | None:
    """The reference answer as a model is told to write it; None where there is none."""
    if question.form != "true_false" or question.answer is None:
        return question.answer
    return truth_words(question)[question.answer != "true"]


def _tail(question: Question) -> str:
    chinese = is_chinese(question.text)
    match question.form:
        case "choice":
            options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, question.options, strict=False))
            several = question.answer is not None and len(question.answer) > 1
            if chinese:
                how = "可能有多个正确选项。只回答所有正确选项的字母。" if several else "只回答正确选项的字母。"
            else:
                how = (
                    "Several options may be right. Answer with the letters of all right options only."
                    if several
                    else "Answer with the letter of the right option only."
                )
            return f"{options}\n\n{how}"
        case "true_false":
            return (
                "判断对错。只回答“正确”或“错误”。"
                if chinese
                else 'Is this true or false? Answer "true" or "false" only.'
            )
        case _:
            return ""
