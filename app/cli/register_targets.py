"""What a registration starts from: the folder, this machine's engines, the configuration; and what it writes there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.cli.registered_entries import EngineSettings, Situation, entries, settings_here, without_gpu
from app.config import yaml_edit
from app.config.load import loads
from app.config.settings import Settings
from app.conversion.model_folder import ModelFolder, read_model_folder
from app.registration import config_step
from app.registration.daemon import renders_jinja
from app.registration.journal import Journal, RegistrationError, held
from app.registration.order import (
    Artifact,
    ConfigEntry,
    Order,
    ServingOrder,
    merged_generation,
    public_names,
    sampling_of,
    stop_ids_to_add,
)
from app.registration.registrar import Registrar, ServedAs, WantedFile
from backends.model_files.digests import value_digest

if TYPE_CHECKING:
    from app.cli.register_progress import ShownProgress
    from app.cli.registering import Asked
    from app.reference.reference import Reference
    from backends.toolenv.environment import Toolbox

ENGINES: Final = ("vllm", "ollama", "embedded")
_RANKS: Final = 512


@dataclass(frozen=True, slots=True)
class Source:
    """The tuned folder. `base_folder`: of an adapter, its base, where that is here. `unservable`: why no engine can
    load the adapter as one; None where it can, or it is no adapter.
    """

    model: ModelFolder
    base: str | None = None
    base_folder: ModelFolder | None = None
    unservable: str | None = None

    @property
    def whole(self) -> ModelFolder:
        """Where the configuration of the whole model is."""
        return self.base_folder or self.model

    @property
    def generation(self) -> Mapping[str, Any]:
        """The generation_config.json: the folder's own, else its base's."""
        return self.model.generation or self.whole.generation


@dataclass(frozen=True, slots=True)
class EnginesHere:
    """What is here. `text` and `tree`: the configuration file as it is written; `notes`: sentences for the user."""

    text: str
    tree: Mapping[str, Any]
    engines: tuple[str, ...]
    settings: EngineSettings
    daemon_url: str
    notes: tuple[str, ...] = ()


def source_of(asked: Asked) -> Source:
    """What is in the folder. FolderProblem or RegistrationError where it cannot be served."""
    model = read_model_folder(asked.folder)
    if not model.is_adapter:
        if asked.base is not None or asked.merge:
            raise RegistrationError(f"'{asked.folder}' is a whole model, no adapter: leave out --base and --merge")
        return Source(model)
    base = asked.base or model.base
    if base is None:
        raise RegistrationError(f"'{asked.folder}' does not say which model it was trained on: name it with --base")
    folder = Path(base).expanduser()
    if not folder.is_dir():
        if asked.base is not None and (folder.exists() or folder.is_absolute() or base.startswith((".", "~"))):
            what = "is not a folder" if folder.exists() else "is not there"
            raise RegistrationError(f"the base that --base names, '{base}', {what}")
        if folder.is_absolute() or base.startswith((".", "~")):
            raise RegistrationError(f"the base of '{asked.folder}', '{base}', is not here: name it with --base")
        return Source(model, base, None, _unservable(model.config))
    return Source(model, str(folder.resolve()), read_model_folder(folder.resolve()), _unservable(model.config))


def _unservable(config: Mapping[str, Any]) -> str | None:
    """Why vLLM cannot serve an adapter with this adapter_config.json as it was trained; None where it can."""
    kind, rank = config.get("peft_type", "LORA"), config.get("r")
    if kind != "LORA":
        return f"it is a {kind}, no LoRA"
    if config.get("use_dora"):
        return "it was trained with DoRA"
    if config.get("modules_to_save"):
        return f"it has whole layers of its own (modules_to_save: {', '.join(map(str, config['modules_to_save']))})"
    if config.get("trainable_token_indices"):
        return "it has embeddings of its own"
    if config.get("bias", "none") != "none":
        return "it has biases of its own"
    if isinstance(rank, int) and rank > _RANKS:
        return f"its rank is {rank}, and {_RANKS} is the most"
    return None


def look_around(asked: Asked, config: Path) -> EnginesHere:
    """The configuration file, and the engines that were asked for or are here. ConfigError, RegistrationError. Blocks:
    a daemon has a second to answer.
    """
    text = yaml_edit.read(config)
    tree = config_step.tree_of(text)
    loads(_with_something(text, tree), os.environ, source=str(config), is_lenient=True)
    yaml_edit.check_writable(config)
    url = (asked.ollama_url or _daemon_url(tree)).rstrip("/")
    command = asked.vllm_command or os.environ.get("MODELPORT_VLLM")
    settings = settings_here(tree, command, shutil.which("vllm"), _settings(asked.settings))
    has_vllm = _program(settings) is not None
    notes: list[str] = []
    engines = asked.engines
    if not engines:
        answering = ("ollama",) if _answers(url) else ()
        engines = (*(("vllm",) if has_vllm else ()), *answering) or ("embedded",)
        notes.append(f"No engine was named: it is registered for {' and '.join(engines)}, which this machine has.")
    if "vllm" in engines and not has_vllm:
        word = settings.command if isinstance(settings.command, str) else "vllm"
        raise RegistrationError(
            f"vLLM's program '{word}' is not here: install it in an environment of its own and name its bin/vllm with "
            "--vllm-command, or take --embedded"
        )
    return EnginesHere(text, tree, tuple(each for each in ENGINES if each in engines), settings, url, tuple(notes))


def _with_something(text: str, tree: Mapping[str, Any]) -> str:
    """The text; where it serves nothing yet, with something that it serves: the rest of it can be checked then."""
    if config_step.at(tree, ("models",)):
        return text
    address = {"kind": "remote", "url": "http://127.0.0.1:9/v1"}
    text = yaml_edit.set_entry(text, ("backends", "modelport-register"), address)
    return yaml_edit.set_entry(text, ("models", "modelport-register"), {"backend": "modelport-register"})


def _program(settings: EngineSettings) -> str | None:
    command = settings.command or "vllm"
    word = command.split()[0] if isinstance(command, str) else str(next(iter(command)))
    return shutil.which(str(Path(word).expanduser()))


def _daemon_url(tree: Mapping[str, Any]) -> str:
    from app.config.model import ollama_url

    for backend in (config_step.at(tree, ("backends",)) or {}).values():
        if isinstance(backend, Mapping) and backend.get("kind") == "ollama" and not backend.get("managed"):
            return str(backend.get("url") or "http://127.0.0.1:11434").removesuffix("/v1")
    return ollama_url(Settings.from_env(os.environ).ollama_host)


def _answers(url: str) -> bool:
    import httpx

    try:
        return "version" in httpx.get(f"{url}/api/version", timeout=1.0, trust_env=False).text
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _settings(words: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` words as settings; a value is JSON or a plain text."""
    settings: dict[str, Any] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key.isidentifier():
            raise RegistrationError(f"--set {word}: write KEY=VALUE, such as --set max_model_len=4096")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value
    return settings


def ordered(asked: Asked, source: Source, config: Path, machine: EnginesHere) -> Order:
    """What is to be done."""
    names = public_names(asked.name, machine.engines)
    is_merged = asked.merge or source.unservable is not None
    takes = {"ollama": "daemon", "embedded": "file"}
    servings = []
    for engine in machine.engines:
        form = takes.get(engine) or ("adapter" if source.model.is_adapter and not is_merged else "folder")
        url = machine.daemon_url if engine == "ollama" else ""
        servings.append(ServingOrder(names[engine], engine, form, url))  # type: ignore[arg-type]
    return Order(
        name=asked.name,
        source=asked.folder,
        config=config,
        servings=tuple(servings),
        outtype=asked.outtype,
        is_adapter=source.model.is_adapter,
        base=source.base,
        context=asked.context,
        replace=asked.replace,
    )


def trained_of(source: Source, trained_on: Reference, daemon_version: str | None) -> ServedAs:
    """What serving it depends on. `daemon_version`: of the Ollama daemon, None where there is none."""
    eos = _text(source.model.tokenizer_config.get("eos_token") or source.whole.tokenizer_config.get("eos_token"))
    more, texts = stop_ids_to_add(trained_on.stops, trained_on.stop_ids, source.generation, eos)
    own = source.whole.config.get("eos_token_id")
    first = own if isinstance(own, int) else None
    template, system = None, trained_on.default_system
    if daemon_version is not None and not renders_jinja(daemon_version):
        from app.registration.go_families import family_for

        bos = trained_on.bos if trained_on.starts_with_bos else None
        template, system = family_for(trained_on.rendered, daemon_version, bos=bos, system=system)
    return ServedAs(
        chat_template=trained_on.chat_template,
        default_system=system,
        sampling=sampling_of(source.generation, trained_on.stops, texts),
        generation=merged_generation(source.generation, more, first) if more else None,
        context_length=source.whole.context_length,
        daemon_template=template,
        eos=tuple(text for text in trained_on.stops if trained_on.stop_ids.get(text) in more),
        adds_bos=trained_on.gguf_adds_bos,
    )


def _text(token: Any) -> str | None:
    value = token.get("content") if isinstance(token, dict) else token
    return value if isinstance(value, str) else None


class Converting:
    """Fulfils Conversions with llama.cpp's converter and PEFT, in tool environments."""

    def __init__(self, tools: Toolbox, tell: ShownProgress, *, trust_remote_code: bool) -> None:
        self._tools = tools
        self._tell = tell
        self._trusts = trust_remote_code

    def gguf(self, wanted: WantedFile) -> Mapping[str, Any]:
        """Write a GGUF file and return facts of it for the log."""
        from app.conversion.convert import convert

        done = convert(
            wanted.source,
            wanted.outtype,
            wanted.out,
            self._tools,
            self._tell,
            base=Path(wanted.base) if wanted.base is not None else None,
            chat_template=wanted.chat_template,
            eos=wanted.eos,
            adds_bos=wanted.adds_bos,
            trust_remote_code=self._trusts,
            replace=True,
        )
        for remark in done.remarks:
            self._tell.say(remark)
        told = f"{done.size_bytes:,} bytes, {done.bits_per_weight:.2f} bits per weight, from {done.source_bytes:,}"
        return {"told": told, "bytes": done.size_bytes, "bits_per_weight": done.bits_per_weight}

    def merged(self, adapter: Path, base: str | None, out: Path) -> Mapping[str, Any]:
        """Write the folder of a model that has the adapter in its weights."""
        from app.conversion.merge import merge

        where = Path(base) if base is not None else None
        merge(adapter, where, out, self._tools, self._tell, trust_remote_code=self._trusts)
        return {}


def write_entries(
    order: Order,
    artifacts: Mapping[ServingOrder, Artifact],
    trained: ServedAs,
    machine: EnginesHere,
    source: Source,
    journal: Journal,
    registrar: Registrar,
) -> None:
    """Write the entries of all servings into the configuration file at once. ConfigError, RegistrationError."""
    with held(order.config):
        text = yaml_edit.read(order.config)
        tree = config_step.tree_of(text)
        made = [each for each in journal.made() if each.what == "entry"]
        settings = machine.settings
        if any(each.takes in ("folder", "adapter") for each in order.servings) and not _has_gpu():
            here = without_gpu(source.whole.config, order.context)
            settings = EngineSettings(settings.command, settings.env, {**here, **settings.more})
        now = Situation(tree, made, settings, _read)
        wanted: list[ConfigEntry] = []
        for serving, artifact in artifacts.items():
            wanted += entries(serving, artifact, order, trained.sampling, now)
        problems = config_step.conflicts(tree, wanted, made)
        if problems and not order.replace:
            raise RegistrationError(
                f"{order.config}: {', '.join(problems)} is there already: choose another --name, or --replace"
            )
        after, own = config_step.with_entries(text, wanted, made)
        loads(after, os.environ, source=str(order.config), is_lenient=True)
        key = value_digest([[(each.keys, each.value) for each in wanted], after])

        def act() -> Mapping[str, Any]:
            if after != text:
                yaml_edit.write(order.config, after)
            return {"told": "nothing had to be changed" if after == text else ""}

        registrar.run("config", key, f"writing {order.config}", own, act)


def _read(path: str) -> str | None:
    try:
        return Path(path).expanduser().read_text()
    except (OSError, ValueError):
        return None


def _has_gpu() -> bool:
    from app.supervisor.capacity import devices

    machine = devices.machine(None, os.environ)
    return bool(machine.gpus) or machine.has_unknown_gpus
