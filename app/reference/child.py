"""Runs in the tool environment `templates`: LLaMA-Factory's own template code, and chat templates in Jinja as
transformers runs them. A JSON request on standard input, JSON lines on standard output.

Neither torch nor transformers is imported: the modules of LLaMA-Factory's package that would are stood in for, and its
tokenizer is one whose ids are the pieces of text themselves. Its templates are globals that are changed by use, so each
job has copies of its own.
"""

from __future__ import annotations

import copy
import datetime
import importlib
import importlib.util
import json
import logging
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ANSWER = "\ue000"  # stands for what the model is to write
_PACKAGE = "llamafactory"
_TOOLS = "llamafactory.data.tool_utils"
# What a training file does not say (LLaMA-Factory's own defaults).
_SETTINGS = {
    "default_system": None,
    "tool_format": None,
    "enable_thinking": True,
    "preserve_thinking": False,
    "train_on_prompt": False,
}

Job = Mapping[str, Any]


def _stand_in(name: str, folder: Path | None = None, **members: Any) -> types.ModuleType:
    """A module in place of the real one; with a folder, a package whose own first file is not run."""
    module = types.ModuleType(name)
    module.__dict__.update(members)
    module.__path__ = [str(folder)] if folder else []
    sys.modules[name] = module
    return module


class _Silent(logging.Logger):
    """LLaMA-Factory's loggers have methods of their own (`warning_rank0`)."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_args, **_more: None


def _plugin(name: str = "base", *_args: Any, **_more: Any) -> SimpleNamespace:
    return SimpleNamespace(name=name)


class TemplateCode:
    """LLaMA-Factory's module of templates, on a day of our choice."""

    def __init__(self, today: str) -> None:
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"{_PACKAGE} is not installed")
        root = Path(spec.origin).parent
        for part in ("", "data", "extras"):
            _stand_in(f"{_PACKAGE}.{part}".rstrip("."), root / part)
        _stand_in("fsspec")
        _stand_in("datasets", DatasetDict=None, concatenate_datasets=None, interleave_datasets=None)
        _stand_in("llamafactory.data.mm_plugin", get_mm_plugin=_plugin)
        log = _stand_in("llamafactory.extras.logging", get_logger=_Silent)
        sys.modules["llamafactory.extras"].__dict__["logging"] = log
        self._module: Any = importlib.import_module("llamafactory.data.template")
        self._originals = copy.deepcopy(self._module.TEMPLATES)
        self.names = sorted(self._originals)
        self.be_on(today)

    def be_on(self, day: str) -> None:
        """Let it be that day for the templates that tell it."""
        moment = datetime.datetime.fromisoformat(day)
        sys.modules[_TOOLS].__dict__["datetime"] = SimpleNamespace(now=lambda: moment)

    def template(self, name: str | None, tokenizer: Tokenizer, settings: Mapping[str, Any]) -> Any:
        """A copy of a template with the settings of a training file; the tokenizer is changed as it would be."""
        self._module.TEMPLATES.clear()
        self._module.TEMPLATES.update(copy.deepcopy(self._originals))
        given = SimpleNamespace(template=name, **{**_SETTINGS, **settings})
        return self._module.get_template_and_fix_tokenizer(tokenizer, given)


class Tokenizer:
    """A tokenizer whose ids are the pieces of text themselves. `facts`: see `tokenizer.py`."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.tokens: dict[str, str] = dict(facts["tokens"])
        self._adds_bos = facts["adds_bos"]
        self.chat_template = facts["chat_templates"].get("default")

    def __getattr__(self, name: str) -> str | None:
        """`bos_token`, `eos_token_id`, …: both are the text, None where there is no such token."""
        kind = name.removesuffix("_id")
        if kind not in {"bos_token", "eos_token", "pad_token"}:
            raise AttributeError(name)
        tokens: Mapping[str, str] = self.__dict__["tokens"]
        return tokens.get(kind)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[str]:
        """The text in one piece, with the first token before it where the tokenizer puts one."""
        bos = self.tokens.get("bos_token") if add_special_tokens and self._adds_bos else None
        return ([bos] if bos else []) + ([text] if text else [])

    def decode(self, ids: list[str]) -> str:
        """The whole text."""
        return "".join(ids)

    def convert_tokens_to_ids(self, token: str) -> str:
        """The token itself."""
        return token

    def convert_ids_to_tokens(self, token: str) -> str:
        """The token itself."""
        return token

    def add_special_tokens(self, names: Mapping[str, Any], **_more: Any) -> int:
        """Special tokens by kind; none is ever new to the vocabulary."""
        self.tokens.update({key: value for key, value in names.items() if key != "additional_special_tokens"})
        return 0

    def apply_chat_template(
        self, messages: list[dict[str, Any]], add_generation_prompt: bool = False, tokenize: bool = False
    ) -> str:
        """The prompt that its chat template makes."""
        assert not tokenize
        return render_jinja(self.chat_template, messages, [], self.tokens, None, opener=add_generation_prompt)


def _environment(today: str | None) -> Any:
    """Jinja as transformers sets it up for chat templates."""
    jinja2 = importlib.import_module("jinja2")
    ext, nodes = importlib.import_module("jinja2.ext"), importlib.import_module("jinja2.nodes")
    sandbox = importlib.import_module("jinja2.sandbox")

    def parse(_self: Any, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.Scope(body).set_lineno(line)

    # `{% generation %}` marks what a model is trained on; in a prompt it changes nothing.
    generation = type("Generation", (ext.Extension,), {"tags": frozenset({"generation"}), "parse": parse})

    def refuse(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = refuse
    moment = datetime.datetime.fromisoformat(today or "2026-01-01")
    environment.globals["strftime_now"] = moment.strftime
    return environment


_compiled: dict[tuple[str, str | None], Any] = {}


def render_jinja(
    source: str | None,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    tokens: Mapping[str, str],
    today: str | None,
    *,
    opener: bool = True,
) -> str:
    """The prompt that a chat template makes, as transformers does it."""
    if source is None:
        raise ValueError("the tokenizer has no chat template")
    key = (source, today)
    if key not in _compiled:
        _compiled[key] = _environment(today).from_string(source)
    more = {"tools": tools or None, "documents": None, "add_generation_prompt": opener, **tokens}
    return str(_compiled[key].render(messages=messages, **more))


def _with_objects(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls of tools with their arguments as objects, as vLLM hands them to a template."""
    messages = copy.deepcopy(messages)
    for message in messages:
        for call in message.get("tool_calls") or ():
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return messages


def _reason(exc: Exception) -> str:
    text = " ".join(str(exc).split())
    return text if text and type(exc).__name__ == "TemplateError" else f"{type(exc).__name__}: {text}".rstrip(": ")


def by_jinja(job: Job) -> dict[str, Any]:
    """What chat templates, named as a tokenizer has them, make of each chat: {"rendered": …, "refused": …}."""
    named, tokens, today = job["chat_templates"], job["tokens"], job["today"]
    rendered: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name, chat in job["chats"].items():
        source = (named.get("tool_use") if chat["tools"] else None) or named.get("default")
        # Some templates want the arguments of calls as text, as llama.cpp can hand them over.
        for messages in (_with_objects(chat["messages"]), copy.deepcopy(chat["messages"])):
            try:
                rendered[name] = render_jinja(source, messages, chat["tools"], tokens, today)
            except Exception as exc:  # noqa: BLE001 - whatever a foreign template raises
                refused.setdefault(name, _reason(exc))
                continue
            refused.pop(name, None)
            break
    return {"rendered": rendered, "refused": refused}


def _slots(formatter: Any) -> dict[str, Any]:
    slots: list[Any] = []
    for slot in formatter.slots:
        if isinstance(slot, set):
            slots.append({"special": next(iter(slot))})
        else:
            slots.append(dict(slot) if isinstance(slot, dict) else slot)
    return {"slots": slots, "tool_format": getattr(formatter, "tool_format", None)}


def _instructions(code: TemplateCode, template: Any, job: Job) -> list[str]:
    """What the template says of tools, for the first probe and for all of them."""
    probes = job["probes"]
    code.be_on(job["probe_day"])
    try:
        return [template.format_tools.apply(content=json.dumps(some))[0] for some in (probes[:1], probes)]
    except Exception:  # noqa: BLE001 - it has no tools then
        return ["", ""]
    finally:
        code.be_on(job["today"])


def _described(code: TemplateCode, template: Any, tokenizer: Tokenizer, job: Job) -> dict[str, Any]:
    """The template as data."""
    formats = ("user", "assistant", "system", "function", "observation", "tools", "prefix")
    return {
        "classes": [kind.__name__ for kind in type(template).__mro__ if kind is not object],
        "formats": {name: _slots(getattr(template, f"format_{name}")) for name in formats},
        "default_system": template.default_system,
        "thought_words": list(template.thought_words),
        "empty_thought": template.add_thought(),
        "enable_thinking": template.enable_thinking,
        "preserve_thinking": template.preserve_thinking,
        "bos": tokenizer.tokens.get("bos_token"),
        "eos": tokenizer.tokens.get("eos_token"),
        "instructions": _instructions(code, template, job),
    }


def _encode(template: Any, tokenizer: Tokenizer, chat: Mapping[str, Any]) -> tuple[str, str]:
    """The prompt as its chat engine asks, and the whole conversation as it trains."""
    turns, system, tools = chat["turns"], chat["system"], chat["tool_text"]
    open_end = [*copy.deepcopy(turns), {"role": "assistant", "content": ""}]
    asked, _ = template.encode_oneturn(tokenizer, open_end, system, tools)
    whole = [*copy.deepcopy(turns), {"role": "assistant", "content": ANSWER}]
    pairs = template.encode_multiturn(tokenizer, whole, system, tools)
    end = (tokenizer.tokens.get("eos_token") or "") if template.efficient_eos else ""
    return "".join(asked), "".join("".join(source + target) for source, target in pairs) + end


def by_llamafactory(code: TemplateCode, job: Job) -> dict[str, Any]:
    """What LLaMA-Factory makes of each chat with the job's template and settings."""
    tokenizer = Tokenizer(job["tokenizer"])
    code.be_on(job["today"])
    try:
        template = code.template(job["template"], tokenizer, job["settings"])
    except Exception as exc:  # noqa: BLE001 - an unknown name, or one that cannot be read from a tokenizer
        return {"error": _reason(exc)}
    rendered: dict[str, str] = {}
    trained: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name, chat in job["chats"].items():
        try:
            rendered[name], trained[name] = _encode(template, tokenizer, chat)
        except Exception as exc:  # noqa: BLE001 - what it cannot encode
            refused[name] = _reason(exc)
    stops = [token for token in (tokenizer.tokens.get("eos_token"), *template.stop_words) if token]
    return {
        "rendered": rendered,
        "trained": trained,
        "refused": refused,
        "stops": list(dict.fromkeys(stops)),
        "default_system": template.default_system,
        "plugin": template.mm_plugin.name,
        "tokens": tokenizer.tokens,
        "described": _described(code, template, tokenizer, job),
    }


def by_modelfile(code: TemplateCode, job: Job) -> dict[str, Any]:
    """The names of the templates that LLaMA-Factory would have written this Modelfile for."""
    # The stops are a set: they come in any order.
    wanted = sorted(job["modelfile"].splitlines())
    names = []
    for name in code.names:
        tokenizer = Tokenizer(job["tokenizer"])
        try:
            template = code.template(name, tokenizer, {"default_system": job["default_system"]})
            written = template.get_ollama_modelfile(tokenizer)
        except Exception:  # noqa: BLE001, S112 - it writes none for such a template
            continue
        if sorted(written.splitlines()) == wanted:
            names.append(name)
    return {"names": names}


def _done(code: TemplateCode | None, job: Job) -> dict[str, Any]:
    if code is None or job["do"] == "jinja":
        return by_jinja(job)
    if job["do"] == "names":
        return {"names": code.names}
    return by_modelfile(code, job) if job["do"] == "modelfile" else by_llamafactory(code, job)


def main() -> None:
    """Answer one request: {"jobs": [...], "today": "2026-11-27"}; the result is a list with one for each job."""
    request = json.load(sys.stdin)
    today = request["today"]
    jobs = [{"today": today, **job} for job in request["jobs"]]
    try:
        code = TemplateCode(today) if any(job["do"] != "jinja" for job in jobs) else None
        answer: dict[str, Any] = {"result": [_done(code, job) for job in jobs]}
    except Exception as exc:  # the top of the script
        logging.exception("no result")
        answer = {"error": f"LLaMA-Factory's templates cannot be used: {_reason(exc)}"}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
