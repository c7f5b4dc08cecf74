"""Does what an order says, step by step; a step that is done is not done again, whoever killed the run meanwhile."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from app.config import yaml_edit
from app.config.yaml_document import ConfigError
from app.registration.config_step import at, is_ours, taken, tree_of
from app.registration.content import folder_digest, stamp_of
from app.registration.daemon import OllamaDaemon
from app.registration.journal import Journal, Made, RegistrationError, StepRecord, remove
from app.registration.order import Artifact, Order, SamplingDefaults, ServingOrder, daemon_parameters, slug
from app.whole_file import write_whole
from backends.model_files.digests import value_digest
from backends.ollama.names import full_name

_MOST_CONTEXT: Final = 8192  # of a daemon's model: its memory grows with it
_VERSION: Final = 2  # of what a step makes from the same inputs; a higher one makes everything anew


class Teller(Protocol):
    """Who is told what is done."""

    def say(self, text: str) -> None:
        """One line for people."""

    def step(self, text: str) -> None:
        """Longer work begins."""

    def bytes(self, done: int, total: int) -> None:
        """How far the work is."""


@dataclass(frozen=True, slots=True)
class WantedFile:
    """A GGUF file that is to be made of a folder. `base`: of an adapter; `chat_template`: Jinja in place of the
    tokenizer's; `eos`: the texts of tokens that end an answer; `adds_bos`: whether an engine puts the first token
    before each text, None: as the tokenizer says.
    """

    source: Path
    base: str | None
    outtype: str
    out: Path
    chat_template: str | None
    eos: Sequence[str]
    adds_bos: bool | None


class Conversions(Protocol):
    """What makes models of other forms. Both write under a temporary name and rename; both raise what the command line
    tells in one sentence.
    """

    def gguf(self, wanted: WantedFile) -> Mapping[str, Any]:
        """Write a GGUF file and return facts of it for the log."""

    def merged(self, adapter: Path, base: str | None, out: Path) -> Mapping[str, Any]:
        """Write the folder of a model that has the adapter in its weights."""


@dataclass(frozen=True, slots=True)
class ServedAs:
    """What the model was trained with, as far as serving it depends on it.

    `generation`: a generation_config.json with the tokens that end an answer, where the model's own lacks one;
    `eos`: the texts of those tokens; `adds_bos`: see Conversions. `daemon_template`: a Go template, for a daemon that
    cannot render the file's own.
    """

    chat_template: str | None
    default_system: str | None
    sampling: SamplingDefaults
    generation: Mapping[str, Any] | None
    context_length: int | None
    daemon_template: str | None = None
    eos: tuple[str, ...] = ()
    adds_bos: bool | None = None


class Registrar:
    """One run. Every method blocks; RegistrationError ends it, and what is done stays done."""

    def __init__(
        self,
        order: Order,
        journal: Journal,
        trained: ServedAs,
        make: Conversions,
        tell: Teller,
        *,
        daemon: OllamaDaemon | None,
    ) -> None:
        self._order = order
        self._journal = journal
        self._trained = trained
        self._make = make
        self._tell = tell
        self._daemon = daemon
        self._digest = ""
        self._used: set[str] = set()

    def __repr__(self) -> str:
        return f"<Registrar {self._order.name} {[each.engine for each in self._order.servings]}>"

    def read(self) -> None:
        """Find out the content hash of the source, and of its base."""
        order = self._order
        self._tell.step(f"reading {order.source}")
        stamps = dict(self._journal.content.stamps)
        digest, fresh = folder_digest(order.source, stamps, self._tell.bytes)
        base: Any = order.base
        if order.base is not None and (folder := Path(order.base)).is_dir():
            base, more = folder_digest(folder, stamps, self._tell.bytes)
            fresh |= more
        self._digest = value_digest([digest, base])
        content = self._journal.content
        stands = {"source": str(order.source), "config": str(order.config), "stamps": {**content.stamps, **fresh}}
        after = msgspec.structs.replace(content, **stands)
        if after != content or not content.steps:
            self._journal.write(after)

    def artifact(self, serving: ServingOrder) -> Artifact:
        """Make what the serving is to be given; nothing is made twice."""
        order = self._order
        if serving.takes == "adapter":
            return Artifact(order.source, template=self._template(), generation=self._generation())
        if serving.takes == "folder":
            folder = order.source if not order.is_adapter else self._merged()
            return Artifact(folder, template=self._template(), generation=self._generation())
        file = self._gguf()
        if serving.takes == "file":
            return Artifact(file)
        return Artifact(file, model=self._created(serving, file))

    def _gguf(self) -> Path:
        order, template, eos = self._order, self._trained.chat_template, self._trained.eos
        bos = self._trained.adds_bos
        key = value_digest([_VERSION, self._digest, order.outtype, template, eos, bos])
        out = self._journal.folder / f"{slug(order.name)}-{order.outtype}-{key[:8]}.gguf"

        def act() -> Mapping[str, Any]:
            return self._make.gguf(WantedFile(order.source, order.base, order.outtype, out, template, eos, bos))

        self.run("convert", key, f"converting to {order.outtype}", [_file(out)], act)
        return out

    def _merged(self) -> Path:
        order = self._order
        key = value_digest([_VERSION, self._digest])
        out = self._journal.folder / f"{slug(order.name)}-merged-{key[:8]}"

        def act() -> Mapping[str, Any]:
            remove(out)  # a killed run's, which was not written down
            return self._make.merged(order.source, order.base, out)

        self.run("merge", key, "merging the adapter into its base", [_file(out)], act)
        return out

    def _template(self) -> Path | None:
        text = self._trained.chat_template
        if text is None:
            return None
        key = value_digest([_VERSION, text])
        out = self._journal.folder / f"chat_template-{key[:8]}.jinja"
        self.run(
            "template", key, "writing the template that it was trained with", [_file(out)], lambda: _write(out, text)
        )
        return out

    def _generation(self) -> Path | None:
        generation = self._trained.generation
        if generation is None:
            return None
        text = json.dumps(generation, indent=2, ensure_ascii=False) + "\n"
        key = value_digest([_VERSION, text])
        out = self._journal.folder / f"generation-{key[:8]}"

        def act() -> Mapping[str, Any]:
            out.mkdir(exist_ok=True)
            return _write(out / "generation_config.json", text)

        self.run("generation", key, "writing where answers end", [_file(out)], act)
        return out

    def _created(self, serving: ServingOrder, file: Path) -> str:
        daemon, trained = self._daemon, self._trained
        assert daemon is not None
        name = slug(serving.name)
        stamp = stamp_of(file, self._journal.content.stamps, lambda _: None)
        content = self._journal.content
        self._journal.write(msgspec.structs.replace(content, stamps={**content.stamps, str(file): stamp}))
        body: dict[str, Any] = {"model": name, "files": {file.name: f"sha256:{stamp[2]}"}}
        body["parameters"] = daemon_parameters(trained.sampling, num_ctx(self._order, trained))
        if trained.default_system:
            body["system"] = trained.default_system
        if trained.daemon_template is not None:
            body["template"] = trained.daemon_template
        key = value_digest([_VERSION, daemon.url, body])
        done = self._journal.done("create", key)
        if done is not None and daemon.digest(name) != done.result.get("digest"):
            self._tell.say(f"the daemon does not have '{name}' any more as it was made: it is made again")
            key = value_digest([key, "again", time.time()])

        def act() -> Mapping[str, Any]:
            daemon.push(file, stamp[2], self._tell.bytes)
            daemon.create(body, lambda line: self._tell.step(f"the daemon: {line}"))
            for old in self._journal.made():
                if old.what == "model" and (old.url, full_name(old.name)) != (daemon.url, full_name(name)):
                    take_back(old)
            return {"digest": daemon.digest(name), "weights": stamp[2], "body": body}

        made = Made(what="model", name=name, url=daemon.url, digest=stamp[2])
        self.run("create", key, f"creating '{name}' in the daemon at {daemon.url}", [made], act)
        return name

    def retire(self) -> None:
        """Take back what earlier runs made and this one did not need: a daemon's model, files."""
        for step in [each for each in self._journal.content.steps if each not in self._used]:
            for made in self._journal.content.steps[step].made:
                take_back(made)
            steps = {name: each for name, each in self._journal.content.steps.items() if name != step}
            self._journal.write(msgspec.structs.replace(self._journal.content, steps=steps))
        self._journal.sweep()

    def complete(self) -> None:
        """Write down that all of it is done."""
        self._journal.write(msgspec.structs.replace(self._journal.content, is_complete=True))

    def run(
        self, step: str, key: str, text: str, made: Sequence[Made], act: Callable[[], Mapping[str, Any]]
    ) -> StepRecord:
        """Do a step that is not done with this key; written down before it begins and when it is done."""
        is_new = step not in self._used
        self._used.add(step)
        done = self._journal.done(step, key)
        if done is not None and all(Path(each.path).exists() for each in made if each.what == "file"):
            if is_new:
                self._tell.say(f"{text}: done already ({done.began})")
            return done
        self._tell.step(text)
        now = datetime.datetime.now(datetime.UTC)
        self._journal.begin(step, key, *made, now=now)
        began = time.monotonic()
        try:
            result = act()
        except OSError as exc:
            raise RegistrationError(
                f"{text}: {exc.strerror or exc}" + (f" ({exc.filename})" if exc.filename else "")
            ) from exc
        except BaseException:
            for each in made:
                if each.what == "file":
                    remove(Path(each.path))
            raise
        seconds = time.monotonic() - began
        self._journal.finish(step, round(seconds, 3), tuple(made), result)
        line = f"{text}: {seconds:.1f} s" + _in_words(result)
        self._journal.log(line, datetime.datetime.now(datetime.UTC))
        self._tell.say(line)
        return self._journal.content.steps[step]


def num_ctx(order: Order, trained: ServedAs) -> int:
    """The tokens of context of a daemon's model: what was asked for, else the model's own, at most 8192."""
    most = order.context or _MOST_CONTEXT
    return min(most, trained.context_length or most)


def refuse_taken(order: Order, journal: Journal, tree: Mapping[str, Any], daemon: OllamaDaemon | None) -> None:
    """RegistrationError where the configuration (`tree`) or the daemon has one of the names already, from somebody
    else, and it is not to be replaced. Nothing has been made yet.
    """
    made = journal.made()
    _refuse_another(order, journal)
    for serving in order.servings:
        place = taken(tree, serving.name, made)
        if place is not None and not (order.replace and place == f"models.{serving.name}"):
            what = "choose another --name" + ("" if order.replace else ", or --replace")
            raise RegistrationError(f"the name '{serving.name}' is taken: {place} in {order.config} has it; {what}")
        if daemon is None or serving.takes != "daemon" or order.replace:
            continue
        name = slug(serving.name)
        ours = [each for each in made if each.what == "model" and each.url == daemon.url]
        if daemon.digest(name) is not None and full_name(name) not in [full_name(each.name) for each in ours]:
            raise RegistrationError(
                f"the daemon at {daemon.url} has a model '{name}' already: choose another --name, or --replace"
            )


def _refuse_another(order: Order, journal: Journal) -> None:
    """RegistrationError where the name is registered for another configuration file, or from another folder."""
    content = journal.content
    if all(each.what == "file" for each in journal.made()):
        return
    config = Path(content.config)
    if config.resolve() != order.config.resolve() and _has_entries(config, journal.made()):
        raise RegistrationError(
            f"'{order.name}' is registered in {config} already, not in {order.config}: `modelport unregister "
            f"{order.name}` first, or choose another --name"
        )
    if Path(content.source).resolve() != order.source.resolve() and not order.replace:
        raise RegistrationError(
            f"the name '{order.name}' is taken: it is registered from {content.source}, not from {order.source}; "
            "choose another --name, or --replace"
        )


def _has_entries(config: Path, made: Sequence[Made]) -> bool:
    """Whether the file has an entry of the registration still."""
    if not config.exists():
        return False
    try:
        tree = tree_of(yaml_edit.read(config))
    except ConfigError:
        return True  # nobody knows
    return any(is_ours(made, each.keys, at(tree, each.keys)) for each in made if each.what == "entry")


def take_back(made: Made) -> str | None:
    """Remove a file, or a daemon's model that is still as it was made; returns a sentence where it stays."""
    if made.what == "file":
        remove(Path(made.path))
        return None
    if made.what != "model":
        return None
    try:
        with OllamaDaemon(made.url) as daemon:
            if daemon.digest(made.name) is None:
                return None
            weights = daemon.weights(made.name)
            if weights is not None and weights != made.digest:
                return f"the daemon's model '{made.name}' has other weights by now and stays"
            daemon.delete(made.name)
    except RegistrationError as exc:
        return f"the daemon's model '{made.name}' stays: {exc}"
    return None


def _file(path: Path) -> Made:
    return Made(what="file", path=str(path))


def _write(path: Path, text: str) -> Mapping[str, Any]:
    write_whole(path, text.encode())
    return {}


def _in_words(result: Mapping[str, Any]) -> str:
    told = result.get("told")
    return f" ({told})" if isinstance(told, str) and told else ""
