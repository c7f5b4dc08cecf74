"""The prompts that an engine builds, held against those of the training. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from app.certificate.certificate import PROMPTS, Fault, Finding, Line
from app.certificate.observation import Observation, SeenFile, SeenPrompt

WHAT: Final = "prompts"
_AROUND: Final = 24  # letters of a text that are shown on each side of a difference
# How families of chat templates mark who speaks; the first that is found in a prompt is its family.
_FAMILIES: Final[tuple[tuple[str, str], ...]] = (
    ("ChatML", r"<\|im_start\|>"),
    ("Llama 3", r"<\|start_header_id\|>"),
    ("Llama 4", r"<\|header_start\|>"),
    ("Mistral", r"\[/?INST\]"),
    ("Gemma", r"<start_of_turn>|<\|turn>"),
    ("Harmony", r"<\|start\|>(?:system|developer|user|assistant)"),
    ("DeepSeek", "<\uff5c(?:User|Assistant)\uff5c>"),
    ("Phi", r"<\|user\|>[\s\S]*<\|end\|>"),
    ("Zephyr or GLM", r"<\|user\|>"),
    ("Command", r"<\|START_OF_TURN_TOKEN\|>"),
    ("Granite", r"<\|start_of_role\|>"),
    ("Alpaca", r"### (?:Instruction|Response):"),
    ("Vicuna", r"USER: [\s\S]*ASSISTANT:"),
    ("plain words", r"Human: [\s\S]*Assistant:"),
)


class Trained(NamedTuple):
    """What the prompts should be, by the chats' names, and what the tokenizer's own template makes of the same chats.
    `name`: of the training's template; `chats`: the messages.
    """

    rendered: Mapping[str, str]
    own: Mapping[str, str]
    name: str | None
    chats: Mapping[str, Sequence[Mapping[str, Any]]]
    default_system: str | None = None
    own_differs: bool = False


def family(prompt: str) -> str | None:
    """Which family's template made a prompt, by how it marks who speaks; None for one that is not known."""
    return next((name for name, mark in _FAMILIES if re.search(mark, prompt)), None)


def difference(expected: str, seen: str) -> str:
    """Where two texts first differ, with the text around it."""
    at = next((at for at, pair in enumerate(zip(expected, seen, strict=False)) if pair[0] != pair[1]), None)
    at = min(len(expected), len(seen)) if at is None else at
    start = max(0, at - _AROUND)
    return f"from letter {at} on: {seen[start : at + _AROUND]!r} in place of {expected[start : at + _AROUND]!r}"


def is_same(seen: SeenPrompt, expected: str) -> bool:
    """Whether it is the same prompt: the same tokens, where the engine tells them, else the same text."""
    if seen.tokens is not None and seen.expected_tokens is not None:
        return seen.tokens == seen.expected_tokens
    return seen.text == expected


def compared(observation: Observation, trained: Trained) -> tuple[Line, ...]:
    """The lines about prompts: against the training, and against the tokenizer's own template."""
    asked = {name: seen for name, seen in observation.prompts.items() if name in trained.rendered}
    told = {name: seen for name, seen in asked.items() if seen.refused is None}
    if not told:
        why = next((seen.refused for seen in asked.values() if seen.refused), "no chat was shown to it")
        # What a daemon shows of a model says nothing of the template in its file, which a newer one renders.
        file = observation.file
        is_known = file.path is not None or _speaks_of_template(asked)
        if is_known and _has_no_template(file, asked):
            line = Line(PROMPTS, WHAT, Finding.DIFFERS, f"{Fault.NO_TEMPLATE}: {why}", (Fault.NO_TEMPLATE,))
            return (line,)
        return (Line(PROMPTS, WHAT, Finding.UNCHECKED, why),)
    wrong = {name: seen for name, seen in asked.items() if not is_same(seen, trained.rendered[name])}
    figures = {"chats": len(asked), "same": len(asked) - len(wrong), "differ": sorted(wrong)}
    if not wrong:
        line = Line(PROMPTS, WHAT, Finding.SAME, f"all {len(asked)} chats become what it was trained on", (), figures)
    else:
        faults = _faults(observation, trained, wrong)
        name, first = next(iter(wrong.items()))
        how = first.refused if first.refused is not None else _how(first, trained.rendered[name])
        text = f"{', '.join(faults)}: {len(wrong)} of {len(asked)} chats; {name!r} {how}"
        line = Line(PROMPTS, WHAT, Finding.DIFFERS, text, faults, figures)
    return (line, *_against_own(told, trained))


def _how(seen: SeenPrompt, expected: str) -> str:
    if seen.text != expected:
        return difference(expected, seen.text or "")
    pairs = enumerate(zip(seen.tokens or (), seen.expected_tokens or (), strict=False))
    at = next((at for at, (one, other) in pairs if one != other), min(len(seen.tokens or ()), 0))
    return f"has the same text and other tokens, from token {at} on"


def _faults(observation: Observation, trained: Trained, wrong: Mapping[str, SeenPrompt]) -> tuple[Fault, ...]:
    """What has gone wrong, by name; several where several have."""
    named: list[Fault] = []
    if _has_no_template(observation.file, wrong):
        named.append(Fault.NO_TEMPLATE)
    if _doubles_bos(observation.file, wrong):
        named.append(Fault.BOS_DOUBLED)
    texts = {name: seen.text for name, seen in wrong.items() if seen.text is not None}
    families = {(family(trained.rendered[name]), family(text)) for name, text in texts.items()}
    is_own = all(text == trained.own.get(name) for name, text in texts.items())
    if trained.own_differs and texts and is_own:
        named.append(Fault.NOT_TRAINED)
    elif any(one != other for one, other in families):
        named.append(Fault.OTHER_FAMILY)
    elif any(_loses_system(name, text, trained) for name, text in texts.items()):
        named.append(Fault.SYSTEM_LOST)
    return tuple(named) or (Fault.OTHER_PROMPT,)


def _has_no_template(file: SeenFile, prompts: Mapping[str, SeenPrompt]) -> bool:
    if file.template_is_given:
        return False
    return file.has_template is False or _speaks_of_template(prompts)


def _speaks_of_template(prompts: Mapping[str, SeenPrompt]) -> bool:
    """Whether the engine refuses a chat because it has no template."""
    said = [seen.refused or "" for seen in prompts.values()]
    return any(re.search(r"(?i)chat[ _]template", text) and re.search(r"(?i)no|must|not", text) for text in said)


def _doubles_bos(file: SeenFile, prompts: Mapping[str, SeenPrompt]) -> bool:
    for seen in prompts.values():
        tokens, expected = seen.tokens, seen.expected_tokens
        # Of the token that begins a text there is one more than there should be.
        is_double = tokens is not None and len(tokens) > 1 and tokens[0] == tokens[1]
        if tokens is not None and is_double and (tokens[0] == file.bos or tokens[1:] == expected):
            return True
        text = seen.text or ""
        if file.bos_text and text.startswith(file.bos_text * 2):
            return True
    return False


def _loses_system(name: str, seen: str, trained: Trained) -> bool:
    """Whether the training's prompt has a system text that this one lacks."""
    systems = [str(each["content"]) for each in trained.chats.get(name, ()) if each.get("role") == "system"]
    systems += [trained.default_system] if trained.default_system else []
    expected = trained.rendered[name]
    return any(text.strip() in expected and text.strip() not in seen for text in systems if text.strip())


def _against_own(told: Mapping[str, SeenPrompt], trained: Trained) -> tuple[Line, ...]:
    """Whether the tokenizer's own template is the one of the training, and which of the two is served."""
    both = [name for name, seen in told.items() if name in trained.own]
    if not both:
        return ()
    what = "the tokenizer's own template"
    if not trained.own_differs:
        return (Line("own template", what, Finding.SAME, "it makes the prompts of the training"),)
    serves_own = all(told[name].text == trained.own[name] for name in both)
    trained_on = f"trained on {trained.name}" if trained.name else "trained on another one"
    if serves_own:
        how = f"{trained_on}, serves the tokenizer's own: {Fault.NOT_TRAINED}"
        return (Line("own template", what, Finding.DIFFERS, how, (Fault.NOT_TRAINED,)),)
    if all(is_same(told[name], trained.rendered[name]) for name in both):
        how = f"{trained_on}, and that is served; the tokenizer's own is another one, and is not used"
        return (Line("own template", what, Finding.SAME, how),)
    return (Line("own template", what, Finding.UNCHECKED, f"{trained_on}; neither that nor the tokenizer's is served"),)
