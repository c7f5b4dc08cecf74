"""The members of a sound JSON object by their names, each of which can be read in one way only. Pure.

Programs differ in how they read names: Go's take `Model` and `MODEL` for `model`, some take the first of two fields and
some the last, and an escape (`mod\\u0065l`) is seen by whoever decodes it. What is decided here by a field must be what
an engine decides by it, so such spellings of the fields that we know are refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from app.dialects import json_members
from app.errors import Problem, bad_request

# Fields of the outermost object. Every one of them costs time wherever the body is edited; real requests have thirty.
MAX_MEMBERS: Final = 1000
# Up to this size names are counted in the body, which is faster than to go along its members.
SHORT_BYTES: Final = 4096
# On any route: what decides here what a request may do, where it goes, or how its answer is read.
KNOWN: Final = frozenset(
    {
        *("model", "name", "stream", "stream_options", "messages", "prompt", "input", "n", "best_of", "echo", "suffix"),
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens", "num_predict", "n_predict"),
        *("temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "stop", "stop_sequences", "logit_bias"),
        *("presence_penalty", "frequency_penalty", "repeat_penalty", "repetition_penalty", "repeat_last_n"),
        *("logprobs", "top_logprobs", "prompt_logprobs", "response_format", "output_format", "output_config", "format"),
        *("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "mcp_servers"),
        *("chat_template", "chat_template_kwargs", "mm_processor_kwargs", "media_io_kwargs", "kv_transfer_params"),
        *("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "grammar"),
        *("json_schema", "reasoning", "reasoning_effort", "thinking", "think", "text", "system", "instructions"),
        *("add_generation_prompt", "continue_final_message", "encoding_format", "dimensions", "user", "metadata"),
        *("modalities", "audio", "prediction", "service_tier", "store", "web_search_options", "include", "priority"),
        *("options", "keep_alive", "raw", "template", "context", "images", "truncate", "shift", "background"),
        *("previous_response_id", "conversation", "query", "documents", "top_n", "text_1", "text_2", "queries"),
        *("items", "data_1", "data_2", "tokens", "file", "language", "add_special_tokens", "return_token_strs"),
    }
)
_OPTIONS: Final = frozenset({"include_usage", "continuous_usage_stats", "include_obfuscation"})

_KEY = re.compile(rb'[ \t\r\n]*"((?:[^"\\]++|\\.)*+)"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_COMMA = re.compile(rb"[ \t\r\n]*,")
_END = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*\Z")
_texts = msgspec.json.Decoder(str)


def members(body: bytes) -> dict[str, msgspec.Raw]:
    """The members of a body that is a JSON object; Problem (400) where one of them may be read in two ways."""
    by_name = json_members.decode(body)
    if len(by_name) > MAX_MEMBERS:
        raise bad_request(f"The request's body has more than {MAX_MEMBERS} fields.", code="too_many_fields")
    if not _is_plain(body, by_name):
        _compare(body, by_name)
    check(by_name, KNOWN)
    options = by_name.get("stream_options")
    if options is not None and bytes(memoryview(options)[:1]) == b"{":
        _check_options(bytes(options))
    return by_name


def check(names: Iterable[str], known: frozenset[str]) -> None:
    """Problem (400) for a name that is not a known one, but is to a program that matches without case."""
    for name in names:
        if name not in known and (meant := folded(name)) in known:
            message = (
                f"A field's name differs from '{meant}' in case or look-alike letters only: write it as it is here."
            )
            raise bad_request(message, param=meant, code="duplicate_field")


def folded(name: str) -> str:
    """The name as programs see it that match without case, by Unicode's rules."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFKC", name).casefold()


def _check_options(options: bytes) -> None:
    by_name = json_members.decode(options)
    try:
        if not _is_plain(options, by_name):
            _compare(options, by_name)
        check(by_name, _OPTIONS)
    except Problem as exc:
        message = exc.message.replace("The request's body holds", "'stream_options' holds")
        raise bad_request(message, param="stream_options", code="duplicate_field") from exc


def _is_plain(body: bytes, by_name: Mapping[str, msgspec.Raw]) -> bool:
    """Whether a short body holds every name once and unescaped: nearly always."""
    if len(body) > SHORT_BYTES:
        return len(body) == _least_bytes(by_name)
    if msgspec.json.encode(by_name) == body:  # no other member, no blank between them, no escape in a name
        return True
    if b"\\u" in body:
        return len(body) == _least_bytes(by_name)
    return all(body.count(b'"%b"' % name.encode()) == 1 for name in by_name)


def _least_bytes(by_name: Mapping[str, msgspec.Raw]) -> int:
    """The length of a body with these members and nothing else: no other member, no blank, no escape in a name. Most
    clients write it so.
    """
    names = "".join(by_name)
    size = len(names) if names.isascii() else len(names.encode())
    around = len(by_name) * len(b'"":,') + len(b"{}") - len(b",")
    return size + around + sum([len(memoryview(raw)) for raw in by_name.values()])


def _compare(body: bytes, by_name: Mapping[str, msgspec.Raw]) -> None:
    """Go along the members as they stand in the body, and compare them with what was decoded, where the last of two
    with the same name counts. Problem (400) for a name that stands there twice, and for an escaped known one.
    """
    at = body.index(b"{") + 1
    for count, (name, raw) in enumerate(by_name.items()):
        comma = _COMMA.match(body, at) if count else None
        key = _KEY.match(body, comma.end() if comma else at)
        if key is None or (count and comma is None):
            raise _twice()
        is_escaped = key[1] != name.encode()
        if is_escaped and _texts.decode(b'"%b"' % key[1]) != name:
            raise _twice()
        if is_escaped and folded(name) in KNOWN | _OPTIONS:
            message = f"The name of the field '{folded(name)}' must be written without escapes."
            raise bad_request(message, param=folded(name), code="duplicate_field")
        at = key.end() + len(memoryview(raw))
        # A number may begin like another one; what follows it tells.
        if memoryview(body)[key.end() : at] != memoryview(raw):
            raise _twice()
    if by_name and _END.match(body, at) is None:
        raise _twice()


def _twice() -> Problem:
    return bad_request("The request's body holds a field twice.", code="duplicate_field")
