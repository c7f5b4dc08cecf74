"""Finish reasons: why a model's response ended, in OpenAI's words, whatever word the engine uses. Pure.

The one table for all engines and dialects. A word that is not in it counts as `length`: the response was cut off.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Any, Final

STOP: Final = "stop"
LENGTH: Final = "length"
# With one of these a tool call may be incomplete.
CUT: Final = frozenset({LENGTH, "content_filter"})
OPENAI: Final = frozenset({STOP, LENGTH, "tool_calls", "function_call", "content_filter"})

# Letters and digits only, in lower case: engines write MAX_TOKENS, maxTokens and max-tokens.
_WORDS: Final = MappingProxyType(
    {
        STOP: "stop stopped stopsequence stopstring stopstr stopword stoptoken stoptokenid stoppedeos stoppedword "
        "eos eostoken eosid endturn endofturn eot eotid endofsequence endofsequencetoken endoftext endofmessage eom "
        "end ended complete completed done finish finished success normal",
        LENGTH: "length maxlength lengthlimit maxlengthreached lengthcapped stoppedlimit limit limitreached truncated "
        "incomplete maxtokens maxtoken maxtokensreached maxnewtokens maxoutputtokens maxcompletiontokens tokenlimit "
        "modellength modelcontextwindowexceeded contextlength contextlengthexceeded contextwindow maxcontextlength "
        "contextwindowexceeded numpredict",
        "tool_calls": "toolcalls toolcall tooluse tools tool",
        "function_call": "functioncall functioncalls function",
        "content_filter": "contentfilter contentfiltered filter filtered refusal refused safety recitation blocklist "
        "prohibitedcontent spii imagesafety imageprohibitedcontent guardrailintervened guardrail sensitive errortoxic "
        "contentpolicy moderation blocked",
        "": "error errored abort aborted cancel cancelled canceled fail failed failure timeout timedout networkerror "
        "internalerror servererror engineerror insufficientsystemresource malformedfunctioncall "
        "unexpectedtoolcall malformedmodeloutput malformedtooluse",
    }
)
_TABLE: Final = MappingProxyType({word: reason for reason, words in _WORDS.items() for word in words.split()})
_OTHER: Final = re.compile(r"[^a-z0-9]+")


def is_unset(reason: Any) -> bool:
    """Whether this stands for "not finished yet" in an event of a stream: some engines write that as a word."""
    if not isinstance(reason, str):
        return not reason
    return reason.strip().lower() in ("", "null", "none", "finish_reason_unspecified")


def finish(reason: Any) -> str | None:
    """One of OpenAI's finish reasons; None where the engine gave up. ValueError for a value that cannot be a reason.

    Some engines write an object with a `type` (SGLang's own API).
    """
    if isinstance(reason, str) and reason in OPENAI:
        return reason
    if isinstance(reason, dict):
        reason = reason.get("type") or reason.get("reason")
    if not isinstance(reason, str):
        raise ValueError("a finish_reason that is not valid")
    word = _OTHER.sub("", reason.lower()).removeprefix("finishreason")
    return _TABLE.get(word, LENGTH) or None
