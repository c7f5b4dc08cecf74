"""What a model was trained on: which prompts, which stops, and the chat template that serves exactly that.

The door of this folder. What was trained is decided in `evidence.py`, said by LLaMA-Factory's own code in `child.py`,
put into Jinja in `jinja_builder.py`, and held against what LLaMA-Factory says here.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Protocol

from app.reference import evidence
from app.reference.chats import CHATS
from app.reference.differences import differing
from app.reference.served import WITH_TOOLS, first, served
from app.reference.tokenizer import BadTokenizer, TokenizerFacts, has_tokenizer, read_tokenizer
from app.reference.tool_formats import PROBE_DAY, PROBES, NotExpressible
from app.reference.training_file import BadTraining, Training
from app.reference.turns import job_chat
from backends.toolenv.child import call
from backends.toolenv.failures import ToolError

ANSWER: Final = "\ue000"  # stands for what the model is to write, in `trained`
_SCRIPT: Final = Path(__file__).with_name("child.py")
_TOOL: Final = "templates"
_ANOTHER_DAY: Final = "2001-02-03"
_TEXT_ONLY: Final = "base"  # LLaMA-Factory's name for no plugin of images, video or audio
_MOST_NAMES: Final = 5
_LIKENESS: Final = 0.6  # of two names; less is another word
_LIST: Final = "list"  # in place of a template's name: all names are wanted


class ReferenceProblem(Exception):
    """What a model was trained on cannot be told or cannot be served: one sentence that says what to do."""


class NoChatTemplate(ReferenceProblem):
    """The tokenizer has no chat template, and nothing says that the model was trained with another: a base model, or
    one that does not chat.
    """


class Interpreters(Protocol):
    """Where interpreters of tool environments come from: `backends/toolenv/environment.py` has the real one."""

    def python(self, tool: str) -> Path:
        """The interpreter of a tool environment. Raises ToolError."""
        ...


@dataclass(frozen=True, slots=True)
class Reference:
    """What a model was trained on.

    `source`: "llamafactory" or "tokenizer"; `template`: LLaMA-Factory's name of it; `reason`: a sentence, which was
    taken and why. `rendered`: the prompt by name of the chat (`chats.py`), as LLaMA-Factory's chat engine asks or the
    tokenizer's template says; a chat that it refuses is in `refused`, with its words. `own`: the tokenizer's own
    template, likewise; `own_differs`: whether any chat does, and `own_difference` is the first one in words.
    `chat_template`: Jinja to serve in place of the tokenizer's; None: its own serves. `serves_tools`: whether what is
    to be served says chats with tools as the reference does; where not, `tools_difference` says how it differs, and
    the served one refuses tools.

    `stops`: the texts that end an answer; `stop_ids`: their tokens, of those that the tokenizer knows.
    `default_system`: what stands for a missing or empty system prompt, None where nothing does.
    `starts_with_bos`: every prompt begins with the text of the first token `bos`; `tokenizer_adds_bos`: the tokenizer
    puts one before every text, which an engine must not do a second time, nor at all where the prompt has none.
    `trained`: whole conversations as training encodes them, with ANSWER in the answer's place.
    `is_dated`: the prompt tells today's date. `cutoff_len`: training cut longer conversations there, in tokens.
    `notes`: sentences on what is not covered.
    """

    source: str
    template: str | None
    reason: str
    rendered: Mapping[str, str]
    own: Mapping[str, str]
    own_differs: bool
    stops: tuple[str, ...]
    default_system: str | None
    chat_template: str | None
    refused: Mapping[str, str] = field(default_factory=dict)
    own_difference: str | None = None
    serves_tools: bool = True
    tools_difference: str | None = None
    stop_ids: Mapping[str, int] = field(default_factory=dict)
    bos: str | None = None
    starts_with_bos: bool = False
    tokenizer_adds_bos: bool = False
    trained: Mapping[str, str] = field(default_factory=dict)
    is_dated: bool = False
    cutoff_len: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def gguf_adds_bos(self) -> bool | None:
        """What a GGUF file has to say of the first token (`tokenizer.ggml.add_bos_token`); None: as the tokenizer.

        llama.cpp takes one first token off the beginning of a prompt where it adds one itself, so a prompt that begins
        with it is right either way; one that does not must not get it.
        """
        return None if self.starts_with_bos or not self.tokenizer_adds_bos else False


def reference(
    folder: Path,
    toolbox: Interpreters,
    *,
    template: str | None = None,
    training: Path | None = None,
    base: Path | None = None,
    today: str | None = None,
) -> Reference:
    """What the model in a Hugging Face folder (or a folder of a LoRA, with its `base`) was trained on.

    `template`: LLaMA-Factory's name of it, or "tokenizer" for the tokenizer's own; `training`: a training file of
    LLaMA-Factory's; neither: the folder and what is beside it tell. `today`: the date in prompts that tell it
    ("2026-11-27"; None: the machine's). Raises ReferenceProblem. Blocks: it makes a tool environment the first time,
    and runs a child.
    """
    try:
        choice = evidence.choose(folder, template, training)
        facts = read_tokenizer(_with_tokenizer(folder, base))
        work = _Work(facts, toolbox.python(_TOOL), today or datetime.datetime.now().astimezone().date().isoformat())
        if choice.modelfile is not None:
            return work.by_modelfile(folder, choice, choice.modelfile)
        if choice.training is None:
            return work.by_tokenizer(folder, choice)
        return work.by_training(choice, choice.training)
    except (BadTraining, BadTokenizer, evidence.Untold, ToolError) as exc:
        raise ReferenceProblem(str(exc)) from exc


def template_names(toolbox: Interpreters) -> tuple[str, ...]:
    """The names of all of LLaMA-Factory's templates. Raises ReferenceProblem. Blocks."""
    try:
        [answer] = _asked(toolbox.python(_TOOL), PROBE_DAY, [{"do": "names"}])
    except ToolError as exc:
        raise ReferenceProblem(str(exc)) from exc
    return tuple(answer["names"])


def _asked(python: Path, today: str, jobs: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    result: Sequence[Mapping[str, Any]] = call(python, _SCRIPT, {"today": today, "jobs": list(jobs)})
    return result


def _with_tokenizer(folder: Path, base: Path | None) -> Path:
    """The folder with the tokenizer: an adapter may have none of its own and then has its base's."""
    if not folder.is_dir():
        raise ReferenceProblem(f"{folder} is not a folder here")
    if has_tokenizer(folder) or not (folder / "adapter_config.json").is_file():
        return folder
    if base is None:
        try:
            named = json.loads((folder / "adapter_config.json").read_text("utf-8-sig")).get("base_model_name_or_path")
        except (OSError, ValueError, AttributeError):
            named = None
        base = Path(named).expanduser() if isinstance(named, str) else None
    if base is None or not has_tokenizer(base):
        raise ReferenceProblem(
            f"the adapter in {folder} has no tokenizer, and its base ({base or 'it names none'}) is no folder with one "
            "here: name the folder of the base"
        )
    return base


class _Work:
    """One model's questions to the child."""

    def __init__(self, facts: TokenizerFacts, python: Path, today: str) -> None:
        self._facts, self._python, self._today = facts, python, today
        self._chats = {name: job_chat(chat) for name, chat in CHATS.items()}

    def _asked(self, *jobs: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return _asked(self._python, self._today, jobs)

    def _own(self) -> Mapping[str, Any]:
        return self._jinja(self._facts.chat_templates, self._facts.tokens)

    def _jinja(self, named: Mapping[str, str], tokens: Mapping[str, str]) -> Mapping[str, Any]:
        return {"do": "jinja", "chat_templates": dict(named), "tokens": dict(tokens), "chats": self._chats}

    def _job(self, training: Training) -> Mapping[str, Any]:
        return {
            "do": "llamafactory",
            "template": training.template,
            "settings": training.settings(),
            "tokenizer": self._facts.as_job(),
            "chats": self._chats,
            "probes": [dict(probe) for probe in PROBES],
            "probe_day": PROBE_DAY,
        }

    def by_tokenizer(self, folder: Path, choice: evidence.ReferenceChoice) -> Reference:
        """The tokenizer's own template is the reference."""
        if "default" not in self._facts.chat_templates:
            raise NoChatTemplate(
                f"the tokenizer in {folder} has no chat template, and nothing says which one it was trained with: say "
                "it with --template NAME or --training FILE"
            )
        own, later = self._asked(self._own(), {**self._own(), "today": _ANOTHER_DAY})
        stops = _stops_of(folder, self._facts)
        return Reference(
            source="tokenizer",
            template=None,
            reason=choice.reason,
            rendered=own["rendered"],
            own=own["rendered"],
            own_differs=False,
            stops=stops,
            default_system=None,
            chat_template=None,
            refused=own["refused"],
            is_dated=own["rendered"] != later["rendered"],
            notes=(*choice.notes, *_toolless(own["rendered"])),
            **self._of_tokens(stops, own["rendered"], self._facts.tokens),
        )

    def by_modelfile(
        self, folder: Path, choice: evidence.ReferenceChoice, modelfile: evidence.WrittenModelfile
    ) -> Reference:
        """The template that LLaMA-Factory wrote a Modelfile for; several that say the same are one."""
        job = {"do": "modelfile", "modelfile": modelfile.text, "tokenizer": self._facts.as_job()}
        plain, changed, own = self._asked(
            {**job, "default_system": None}, {**job, "default_system": modelfile.system}, self._own()
        )
        system = None if plain["names"] else modelfile.system
        names = plain["names"] or changed["names"]
        if not names:
            raise ReferenceProblem(
                f"the Modelfile in {folder} was written by LLaMA-Factory for a template that its version 0.9.5 does "
                "not have: say which it was with --template NAME or --training FILE"
            )
        answers = self._asked(*(self._job(Training(name, default_system=system)) for name in names))
        kinds: dict[str, list[str]] = {}
        for name, answer in zip(names, answers, strict=True):
            kinds.setdefault(json.dumps(answer["rendered"], sort_keys=True), []).append(name)
        alike = kinds.get(json.dumps(own["rendered"], sort_keys=True)) or next(iter(kinds.values()))
        is_own = json.dumps(own["rendered"], sort_keys=True) in kinds
        if len(kinds) > 1 and not is_own:
            either = " or ".join(group[0] for group in kinds.values())
            raise ReferenceProblem(
                f"the Modelfile in {folder} was written by LLaMA-Factory for one of its templates {either}, which "
                "differ in thoughts or tools: say which with --template NAME"
            )
        others = f", or one that says the same ({', '.join(alike[1:])})" if len(alike) > 1 else ""
        reason = f"LLaMA-Factory's template {alike[0]!r}{others}: {choice.reason}"
        return self.by_training(
            evidence.ReferenceChoice(reason, notes=choice.notes), Training(alike[0], default_system=system)
        )

    def by_training(self, choice: evidence.ReferenceChoice, training: Training) -> Reference:
        """One of LLaMA-Factory's templates is the reference."""
        later = {**self._job(training), "today": _ANOTHER_DAY}
        names, told, dated, own = self._asked({"do": "names"}, self._job(training), later, self._own())
        check_name(training.template, names["names"])
        if "error" in told:
            raise ReferenceProblem(f"LLaMA-Factory cannot use the template {training.template!r}: {told['error']}")
        rendered: Mapping[str, str] = told["rendered"]
        differences = differing(rendered, own["rendered"], own["refused"])
        jinja, lost = (None, {}) if not differences else self._served(training, told)
        stops = tuple(told["stops"])
        return Reference(
            source="llamafactory",
            template=training.template,
            reason=choice.reason,
            rendered=rendered,
            own=own["rendered"],
            own_differs=bool(differences),
            stops=stops,
            default_system=told["default_system"] or None,
            chat_template=jinja,
            refused=told["refused"],
            own_difference=first(differences),
            serves_tools=not lost,
            tools_difference=first(lost),
            trained=told["trained"],
            is_dated=rendered != dated["rendered"],
            cutoff_len=training.cutoff_len,
            notes=(*choice.notes, *self._notes(training, told)),
            **self._of_tokens(stops, rendered, told["tokens"]),
        )

    def _served(self, training: Training, told: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
        """The chat template to serve, and the chats with tools that it refuses."""

        def rendering(source: str) -> Mapping[str, Any]:
            [made] = self._asked(self._jinja({"default": source}, told["tokens"]))
            return made

        try:
            return served(told["described"], told["rendered"], rendering)
        except NotExpressible as exc:
            raise ReferenceProblem(
                f"what LLaMA-Factory's template {training.template!r} encodes cannot be said as a chat template in "
                f"Jinja ({exc}), so it cannot be served as it was trained"
            ) from exc

    def _of_tokens(
        self, stops: Sequence[str], rendered: Mapping[str, str], tokens: Mapping[str, str]
    ) -> dict[str, Any]:
        bos = tokens.get("bos_token")
        return {
            "stop_ids": {stop: self._facts.ids[stop] for stop in stops if stop in self._facts.ids},
            "bos": bos,
            "starts_with_bos": bool(bos and rendered and all(text.startswith(bos) for text in rendered.values())),
            "tokenizer_adds_bos": self._facts.adds_bos,
        }

    def _notes(self, training: Training, told: Mapping[str, Any]) -> list[str]:
        """What the reference does not cover, a sentence each."""
        notes = []
        if told["plugin"] != _TEXT_ONLY:
            notes.append(
                f"the template {training.template!r} takes images, video or audio: only prompts of text are covered"
            )
        missing = [stop for stop in told["stops"] if self._facts.ids and stop not in self._facts.ids]
        if missing:
            notes.append(f"the tokenizer does not have the stop {', '.join(map(repr, missing))} as one token")
        strangers = [token for token in training.added_tokens if self._facts.ids and token not in self._facts.ids]
        if strangers:
            notes.append(f"training added the tokens {', '.join(strangers)}, which this tokenizer does not have")
        parts = told["trained"].get("thinking", ANSWER).partition(ANSWER)[0]
        if "thinking" in told["rendered"] and not parts.startswith(told["rendered"]["thinking"]):
            notes.append(
                "training keeps the thoughts of earlier turns (unless `mask_history` is set), LLaMA-Factory's chat "
                "engine takes them out: prompts are as the chat engine asks"
            )
        return notes


def _toolless(rendered: Mapping[str, str]) -> list[str]:
    """Whether a tokenizer's template tells of tools: their names must occur."""
    told = [
        str(tool["function"]["name"]) in rendered.get(name, "") for name in WITH_TOOLS for tool in CHATS[name].tools
    ]
    return [] if any(told) else ["the tokenizer's chat template does not tell the model of tools"]


def _stops_of(folder: Path, facts: TokenizerFacts) -> tuple[str, ...]:
    """What ends an answer where only the tokenizer and `generation_config.json` say so."""
    try:
        said = json.loads((folder / "generation_config.json").read_text("utf-8-sig")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        said = None
    texts = {number: text for text, number in facts.ids.items()}
    numbers = said if isinstance(said, list) else [said]
    named = [texts[number] for number in numbers if isinstance(number, int) and number in texts]
    return tuple(dict.fromkeys([text for text in (facts.tokens.get("eos_token"), *named) if text]))


def check_name(name: str | None, names: Sequence[str]) -> None:
    """ReferenceProblem where no template of LLaMA-Factory's `names` has this name; None stands for none given."""
    if name is None or name in names:
        return
    if name == _LIST:
        raise ReferenceProblem(f"LLaMA-Factory 0.9.5 has these templates: {', '.join(sorted(names))}")
    near = get_close_matches(name, names, _MOST_NAMES, _LIKENESS)
    meant = f" (near it: {', '.join(near)})" if near else ""
    raise ReferenceProblem(
        f"LLaMA-Factory 0.9.5 has no template {name!r}{meant}; {evidence.TOKENIZER!r} is the tokenizer's own, and "
        "`--template list` names all"
    )
