"""What a model's folder says of its tokenizer: special tokens, chat templates, whether a first token is added.

Read from `tokenizer_config.json`, `special_tokens_map.json`, `tokenizer.json` and the files that chat templates have of
their own, as transformers reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_CONFIG: Final = "tokenizer_config.json"
_KINDS: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MOST_BYTES: Final = 256 << 20  # of one JSON file of a tokenizer; real ones have up to 30 MB


class BadTokenizer(Exception):
    """The folder's tokenizer cannot be read: one sentence."""


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """`tokens`: texts of the special tokens by kind ("eos_token"); `chat_templates`: Jinja by name, with "default"
    where there is one; `adds_bos`: whether encoding a text puts the first token before it; `ids`: what tokens have
    which number, as far as the files tell (added tokens and the vocabulary).
    """

    tokens: Mapping[str, str]
    chat_templates: Mapping[str, str]
    adds_bos: bool
    ids: Mapping[str, int] = field(default_factory=dict)

    def as_job(self) -> dict[str, Any]:
        """For a child process."""
        return {
            "tokens": dict(self.tokens),
            "chat_templates": dict(self.chat_templates),
            "adds_bos": self.adds_bos,
        }


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder has a tokenizer's files."""
    return (folder / _CONFIG).is_file()


def read_tokenizer(folder: Path) -> TokenizerFacts:
    """The facts of the tokenizer in a folder. Raises BadTokenizer. Blocks: it reads megabytes."""
    if not has_tokenizer(folder):
        raise BadTokenizer(f"{folder} has no {_CONFIG}, so nothing says how its prompts are written")
    config = _object(folder / _CONFIG)
    table = _object(folder / "tokenizer.json")
    tokens = _tokens(_object(folder / "special_tokens_map.json")) | _tokens(config)
    return TokenizerFacts(
        tokens=tokens,
        chat_templates=_chat_templates(folder, config),
        adds_bos=_adds_bos(config, table, tokens.get("bos_token")),
        ids=_ids(config, table),
    )


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise BadTokenizer(f"{file} is larger than {_MOST_BYTES >> 20} MiB; no tokenizer's file is")
        return file.read_text("utf-8-sig")
    except OSError as exc:
        raise BadTokenizer(f"{file} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise BadTokenizer(f"{file} is not UTF-8 text") from exc


def _object(file: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one where there is no such file."""
    if not file.exists():
        return {}
    try:
        value = json.loads(_text(file))
    except (json.JSONDecodeError, RecursionError) as exc:
        raise BadTokenizer(f"{file} is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise BadTokenizer(f"{file} holds no JSON object")
    return value


def _token(value: Any) -> str | None:
    """A token is written as its text, or as an object with its text."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _tokens(config: Mapping[str, Any]) -> dict[str, str]:
    tokens = {kind: _token(config.get(kind)) for kind in _KINDS}
    return {kind: token for kind, token in tokens.items() if token is not None}


def _chat_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """In a file of its own, which counts before the configuration; else one, or a list of named ones."""
    templates: dict[str, str] = {}
    written = config.get("chat_template") or _object(folder / "chat_template.json").get("chat_template")
    if isinstance(written, str):
        templates["default"] = written
    for one in written if isinstance(written, list) else ():
        name, source = (one.get("name"), one.get("template")) if isinstance(one, dict) else (None, None)
        if isinstance(name, str) and isinstance(source, str):
            templates[name] = source
    own = folder / "chat_template.jinja"
    if own.is_file():
        templates["default"] = _text(own)
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        templates[file.stem] = _text(file)
    return templates


def _adds_bos(config: Mapping[str, Any], table: Mapping[str, Any], bos: str | None) -> bool:
    """`add_bos_token`, or else what `tokenizer.json` does after it has split a text."""
    said = config.get("add_bos_token")
    if isinstance(said, bool):
        return said and bos is not None
    processor = table.get("post_processor")
    return bos is not None and isinstance(processor, dict) and _puts_first(processor, bos)


def _puts_first(processor: Mapping[str, Any], token: str) -> bool:
    inner = processor.get("processors")
    if isinstance(inner, list):
        return any(_puts_first(one, token) for one in inner if isinstance(one, dict))
    single = processor.get("single")
    first = single[0] if isinstance(single, list) and single else None
    special = first.get("SpecialToken") if isinstance(first, dict) else None
    return isinstance(special, dict) and special.get("id") == token


def _ids(config: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, int]:
    ids: dict[str, int] = {}
    model = table.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        ids.update({text: number for text, number in vocabulary.items() if isinstance(number, int)})
    decoder = config.get("added_tokens_decoder")
    for number, token in decoder.items() if isinstance(decoder, dict) else ():
        text = _token(token)
        if text is not None and str(number).isdecimal():
            ids[text] = int(number)
    added = table.get("added_tokens")
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict) and isinstance(token.get("content"), str) and isinstance(token.get("id"), int):
            ids[token["content"]] = token["id"]
    return ids
