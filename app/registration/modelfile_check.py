"""What is wrong with a Modelfile, and one that is right, from what is known of the model. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from app.registration.go_families import differences, family_for
from app.registration.go_template import GoTemplate, NotRendered
from app.registration.modelfile import PARAMETERS, Instruction, Modelfile, is_retired, render
from app.registration.order import daemon_parameters, sampling_of

CAP: Final = 8192  # tokens of context where nothing else is asked for: memory grows with them
_DAEMONS_OWN: Final = 4096  # what a daemon takes for a model on a machine with little memory
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class KnownModel:
    """What is known of the model that a Modelfile is for.

    `files`: the names in the Modelfile's folder; `hidden_ggufs`: those of GGUF files that do not end so. `stops`: the
    texts that end its answers. `rendered`: the prompts of the chats as it was trained, empty where that is not known;
    `own_serves`: whether the template in the model's own files says them. `takes_tools`: whether that template has
    tools. `bos`: the text of the first token.
    """

    files: frozenset[str] = frozenset()
    hidden_ggufs: frozenset[str] = frozenset()
    context_length: int | None = None
    stops: tuple[str, ...] = ()
    generation: Mapping[str, Any] = field(default_factory=dict)
    default_system: str | None = None
    rendered: Mapping[str, str] = field(default_factory=dict)
    own_serves: bool = True
    takes_tools: bool = False
    bos: str | None = None
    trained_on: str = ""


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing that is wrong: an `error` changes answers, a `warning` may. `line`: where; 0: in the whole file."""

    level: Literal["error", "warning"]
    line: int
    text: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{self.level}: {where}{self.text}"


def check(
    modelfile: Modelfile, known: KnownModel, *, num_ctx: int | None = None, renders_jinja: bool = True
) -> list[Flaw]:
    """Everything that is wrong with it. `num_ctx`: tokens of context that are needed; None: the model's, at most CAP.
    `renders_jinja`: whether the daemon renders the template in a GGUF file itself.
    """
    return [
        *_weights(modelfile, known),
        *_template(modelfile, known, renders_jinja=renders_jinja),
        *_system(modelfile, known),
        *_stops(modelfile, known),
        *_context(modelfile, known, num_ctx),
        *_parameters(modelfile, known),
    ]


def _weights(modelfile: Modelfile, known: KnownModel) -> Iterator[Flaw]:
    source = modelfile.first("from")
    if source is None:
        yield Flaw("error", 0, "there is no FROM: nothing says which weights the model has")
        return
    ggufs = sorted(name for name in known.files if name.endswith(".gguf"))
    has_safetensors = any(name.endswith(".safetensors") for name in known.files)
    value = source.value
    if value in (".", "./"):
        if ggufs and has_safetensors:
            yield Flaw(
                "error", source.line, f"FROM . takes the safetensors and not {ggufs[0]}: write FROM ./{ggufs[0]}"
            )
        elif known.hidden_ggufs and not ggufs:
            name = min(known.hidden_ggufs)
            level: Literal["error", "warning"] = "warning" if has_safetensors or name.endswith(".bin") else "error"
            text = f"FROM . may pass over {name}, a GGUF file that does not end so: write FROM ./{name} for it"
            yield Flaw(level, source.line, text)
        elif not ggufs and not has_safetensors:
            yield Flaw("error", source.line, "FROM . finds neither a GGUF file nor safetensors in this folder")
        elif len(ggufs) > 1:
            yield Flaw("error", source.line, f"FROM . finds several GGUF files ({', '.join(ggufs)}): name one")
    elif value.startswith("./") or value.endswith(".gguf"):
        if "/" not in (name := value.removeprefix("./")) and name not in known.files:
            yield Flaw("error", source.line, f"FROM {value}: there is no such file in this folder")
    elif not value.startswith(("/", "~", "..")) and (ggufs or has_safetensors) and modelfile.first("adapter") is None:
        own = f"./{ggufs[0]}" if ggufs else "."
        text = f"FROM {value} is a model of the daemon's and not this folder's: write FROM {own}"
        yield Flaw("error", source.line, text)
    several = [each for each in modelfile.instructions if each.name == "from"]
    if len(several) > 1:
        yield Flaw("warning", several[1].line, "a second FROM: the daemon takes all of them together, or refuses")


def _template(modelfile: Modelfile, known: KnownModel, *, renders_jinja: bool) -> Iterator[Flaw]:
    written = modelfile.last("template")
    if written is None:
        if known.rendered and not known.own_serves:
            text = f"there is no TEMPLATE, and the model's own is not what it was trained with ({known.trained_on})"
            yield Flaw("error", 0, text)
        elif not renders_jinja and modelfile.first("renderer") is None:
            yield Flaw("warning", 0, "there is no TEMPLATE, and a daemon older than 0.33.0 then guesses one")
        return
    if known.takes_tools and "Tools" not in _fields(written.value):
        yield Flaw("error", written.line, "tools are lost: the TEMPLATE has no .Tools, the model's own template has")
    if not known.rendered:
        return
    system = modelfile.last("system")
    try:
        unlike = differences(written.value, known.rendered, bos=known.bos, system=system.value if system else None)
    except NotRendered as exc:
        yield Flaw("warning", written.line, f"the TEMPLATE cannot be compared with the training's: {exc}")
        return
    if unlike:
        name, (wanted, said) = next(iter(unlike.items()))
        yield Flaw(
            "error",
            written.line,
            f"the TEMPLATE is not the one that it was trained with ({known.trained_on}): {len(unlike)} chats differ, "
            f"'{name}' {_first_difference(wanted, said)}",
        )


def _fields(source: str) -> frozenset[str]:
    try:
        return GoTemplate(source).fields
    except NotRendered:
        return frozenset(("Tools",) if ".Tools" in source else ())


def _first_difference(wanted: str, said: str) -> str:
    at = next((index for index, pair in enumerate(zip(wanted, said, strict=False)) if pair[0] != pair[1]), None)
    at = at if at is not None else min(len(wanted), len(said))
    begin = max(0, at - 12)
    return f"says {said[begin : begin + _SHOWN]!r} where it was {wanted[begin : begin + _SHOWN]!r}"


def _system(modelfile: Modelfile, known: KnownModel) -> Iterator[Flaw]:
    if not known.rendered:
        return
    written = modelfile.last("system")
    said, wanted = (written.value if written is not None else ""), known.default_system or ""
    if said == wanted or (said and not wanted and said in known.rendered.get("one turn", "")):
        return
    line = written.line if written is not None else 0
    if not wanted:
        yield Flaw("error", line, f"SYSTEM is {said[:_SHOWN]!r}, and it was trained without a system prompt")
    elif written is None and modelfile.last("template") is not None:
        yield Flaw("error", 0, f"there is no SYSTEM, and it was trained with {wanted[:_SHOWN]!r}")
    elif written is not None:
        yield Flaw("error", line, f"SYSTEM is {said[:_SHOWN]!r}, and it was trained with {wanted[:_SHOWN]!r}")


def _stops(modelfile: Modelfile, known: KnownModel) -> Iterator[Flaw]:
    missing = [stop for stop in known.stops if stop not in modelfile.stops]
    if not missing:
        return
    told = ", ".join(f'PARAMETER stop "{stop}"' for stop in missing)
    level: Literal["error", "warning"] = "error" if len(missing) == len(known.stops) else "warning"
    what = (
        "none of the texts that end an answer is a stop" if level == "error" else "not every end of an answer is a stop"
    )
    yield Flaw(level, 0, f"{what}: add {told}")


def _context(modelfile: Modelfile, known: KnownModel, asked: int | None) -> Iterator[Flaw]:
    written = modelfile.parameter("num_ctx")
    line = written[-1].line if written else 0
    value = _number(written[-1].value) if written else _DAEMONS_OWN
    wanted = asked or min(known.context_length or 0, CAP)
    if value is not None and value < wanted:
        whose = f"{asked} are asked for" if asked else f"the model has {known.context_length}"
        said = f"num_ctx {value:g}" if written else f"there is no num_ctx, so a daemon takes {_DAEMONS_OWN}"
        advice = f"write PARAMETER num_ctx {wanted}"
        text = (
            f"{said}, and {f'{wanted} are ' if asked else ''}{whose}: longer prompts are cut without a word; {advice}"
        )
        yield Flaw("error" if asked or written else "warning", line, text)
    if value is not None and known.context_length is not None and value > known.context_length:
        yield Flaw("warning", line, f"num_ctx {value:g} is more than the model has ({known.context_length})")


def _parameters(modelfile: Modelfile, known: KnownModel) -> Iterator[Flaw]:
    for each in modelfile.instructions:
        if each.name != "parameter":
            continue
        if is_retired(each.key):
            yield Flaw("warning", each.line, f"PARAMETER {each.key} has no effect any more")
        elif each.key not in PARAMETERS:
            yield Flaw("error", each.line, f"PARAMETER {each.key} is not known: the daemon refuses the Modelfile")
        elif PARAMETERS[each.key] in (int, float) and _number(each.value) is None:
            yield Flaw("error", each.line, f"PARAMETER {each.key} needs a number, not {each.value!r}")
    wanted = daemon_parameters(sampling_of(known.generation, ()), None)
    for name in ("temperature", "top_p", "top_k"):
        written = modelfile.parameter(name)
        if name in known.generation and written and _number(written[-1].value) not in (None, float(wanted[name])):
            said = f"{name} {written[-1].value}, and the model's generation_config.json says {known.generation[name]}"
            yield Flaw("warning", written[-1].line, said)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def written(
    known: KnownModel, weights: str, *, num_ctx: int | None = None, version: str = "", renders_jinja: bool = True
) -> str:
    """The text of a Modelfile for the model, `FROM weights`. RegistrationError where it needs a Go template and none
    says what it was trained with; ValueError where a Modelfile cannot hold one of its texts.
    """
    instructions, system = [Instruction("from", weights)], known.default_system
    if known.rendered and not (renders_jinja and known.own_serves):
        template, system = family_for(known.rendered, version, bos=known.bos, system=system)
        instructions.append(Instruction("template", template))
    if system:
        instructions.append(Instruction("system", system))
    length = num_ctx or min(known.context_length or CAP, CAP)
    parameters = daemon_parameters(sampling_of(known.generation, known.stops), length)
    for key, value in parameters.items():
        values: Sequence[Any] = value if isinstance(value, list) else [value]
        instructions += [
            Instruction("parameter", each if isinstance(each, str) else f"{each:g}", key=key) for each in values
        ]
    comments = ["Written by `modelport modelfile`; `modelport modelfile DIR --check FILE` looks at it again."]
    if known.trained_on:
        comments.append(f"Trained on: {known.trained_on}")
    return render(instructions, comments)
