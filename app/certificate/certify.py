"""The certificate of a public name of the running gateway: what is asked, and what is said of the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from app.certificate import answers, prompts, serving
from app.certificate.certificate import Certificate, Finding, Line
from app.certificate.observation import ChatQuestion, Observation, Questions, SeenPrompt
from app.certificate.serving import Expectation
from app.reference.chats import CHATS, Chat
from app.reference.reference import Reference

# One request to the running gateway as its administrator: method, path and JSON body → the JSON of the response. What
# it raises where the gateway refuses goes through.
AdminClient = Callable[[str, str, Any], Any]
# The chats that are answered: their prompts are short and say nothing of tools.
ANSWERED: Final[tuple[str, ...]] = ("one turn", "system", "several turns", "Chinese")
MAX_TOKENS: Final = 64
NOTHING: Final = Expectation()
# Of the chats: two libraries may split a rare text otherwise; a tokenizer that is not the model's does it everywhere.
_FEW: Final = 0.25
_LOOKS: Final = 10  # for the digest of what is served, which the gateway finds out by itself
_LOOK_S: Final = 0.5
# What is asked about, in this order.
PARTS: Final[tuple[str, ...]] = ("prompts", "stops", "context", "answers", "sampling", "files")


def look(name: str, gateway: AdminClient) -> Observation:
    """Which engine serves a public name, from which file; the engine is started where it does not run. Blocks."""
    path = f"/admin/models/{quote(name, safe='')}/observe"
    return msgspec.convert(gateway("POST", path, {}), Observation)


def observe(
    name: str,
    reference: Reference | None,
    gateway: AdminClient,
    *,
    expected: Expectation = NOTHING,
    chats: Mapping[str, Chat] = CHATS,
    max_tokens: int = MAX_TOKENS,
    parts: Collection[str] = PARTS,
    report: Callable[[str], None] = lambda text: None,
    pause: Callable[[float], None] = time.sleep,
) -> Observation:
    """Everything that can be seen of a public name, or only these parts; its engine is started where it does not run.
    Blocks: minutes on a slow machine. `report` is told what is asked next.
    """
    rendered = reference.rendered if reference is not None else {}
    asked = {each: _question(chat, rendered.get(each)) for each, chat in chats.items()}
    shown = {each: asked[each] for each in asked if reference is None or each in rendered}
    answered = {each: asked[each] for each in ANSWERED if each in asked} or dict(list(asked.items())[:2])
    steps = {
        "prompts": ("the prompts that it builds", Questions(prompts=shown)),
        "stops": ("where it stops", Questions(stops=reference.stops if reference is not None else ())),
        "context": ("how much context it takes", Questions(context=expected.context_length or 0)),
        "answers": ("greedy answers", Questions(answers=answered, max_tokens=max_tokens)),
        "sampling": ("what it draws with", Questions(sampling=True)),
        "files": ("which weights it has", Questions(hashes=True)),
    }
    path = f"/admin/models/{quote(name, safe='')}/observe"
    seen: Observation | None = None
    for what, questions in (steps[part] for part in PARTS if part in parts):
        report(f"{name}: {what} …")
        told = msgspec.convert(gateway("POST", path, msgspec.to_builtins(questions)), Observation)
        seen = told if seen is None else merged(seen, told, questions)
    assert seen is not None
    for _ in range(_LOOKS if seen.file.path is not None else 0):
        if seen.serving is not None:
            break
        pause(_LOOK_S)  # the gateway reads the same files beside this, and is soon done
        seen = merged(seen, look(name, gateway), Questions())
    return seen


def merged(seen: Observation, part: Observation, questions: Questions) -> Observation:
    """What was seen before, with what these questions have shown."""
    changes: dict[str, Any] = {"serving": part.serving or seen.serving}
    for field in ("prompts", "answers", "stops"):
        if getattr(questions, field):
            changes[field] = getattr(seen, field) | getattr(part, field)
    if questions.context is not None:
        changes["context"] = part.context
    if questions.sampling:
        changes["sampling"] = part.sampling
    if questions.hashes:
        changes["file"] = part.file
    return msgspec.structs.replace(seen, **changes)


def judge(
    seen: Observation,
    reference: Reference | None,
    *,
    expected: Expectation = NOTHING,
    against: Observation | None = None,
    chats: Mapping[str, Chat] = CHATS,
    held_against: str | None = None,
    date: str,
) -> Certificate:
    """What is to be said of an observation, against what the model was trained on and against another serving. Pure."""
    lines: list[Line] = []
    if reference is not None:
        lines += prompts.compared(seen, trained(reference, chats))
    if against is not None:
        lines.append(_same_prompts(seen, against))
        lines += answers.compared(seen, against)
    elif reference is not None:
        why = "there is no other serving to compare with: `modelport parity A B` does"
        lines.append(Line("answers", "greedy answers", Finding.UNCHECKED, why))
    lines.append(serving.stops(seen, reference.stops if reference is not None else ()))
    lines.append(serving.context(seen, expected.context_length))
    lines.append(serving.sampling(seen, expected.sampling))
    lines.append(serving.files(seen, expected))
    return Certificate(
        model=seen.model,
        date=date,
        reference=reference.reason if reference is not None else _without(against),
        lines=tuple(lines),
        against=against.model if against is not None else None,
        backend=seen.backend,
        kind=seen.kind,
        version=seen.version,
        serving=seen.serving,
        identity=seen.identity,
        trained_on=reference.template if reference is not None else None,
        held_against=held_against,
    )


def certify(
    name: str,
    reference: Reference,
    gateway: AdminClient,
    *,
    expected: Expectation = NOTHING,
    against: Observation | None = None,
    chats: Mapping[str, Chat] = CHATS,
    max_tokens: int = MAX_TOKENS,
    report: Callable[[str], None] = lambda text: None,
    date: str,
) -> Certificate:
    """Observe, judge, and have the gateway keep the certificate, which lists of models show from then on. Blocks."""
    seen = observe(name, reference, gateway, expected=expected, chats=chats, max_tokens=max_tokens, report=report)
    certificate = judge(seen, reference, expected=expected, against=against, chats=chats, date=date)
    keep(certificate, gateway)
    return certificate


def keep(certificate: Certificate, gateway: AdminClient) -> str | None:
    """Have the gateway keep it. Returns what lists of models go on showing in its place, where the gateway has one of
    the same serving that checked more.
    """
    path = f"/admin/models/{quote(certificate.model, safe='')}/certificate"
    told = gateway("POST", path, msgspec.to_builtins(certificate))
    return None if told.get("is_kept", True) else str(told["parity"])


def trained(reference: Reference, chats: Mapping[str, Chat] = CHATS) -> prompts.Trained:
    """What a reference says of prompts."""
    return prompts.Trained(
        reference.rendered,
        reference.own,
        reference.template,
        {name: chat.messages for name, chat in chats.items()},
        reference.default_system,
        reference.own_differs,
    )


def _without(against: Observation | None) -> str:
    return "nothing: what it was trained on is not known" if against is None else "none: two servings are compared"


def _question(chat: Chat, expected: str | None) -> ChatQuestion:
    return ChatQuestion([dict(each) for each in chat.messages], [dict(each) for each in chat.tools], expected)


def _same_prompts(one: Observation, other: Observation) -> Line:
    key, what = "same prompts", "prompts of both"
    names = [name for name in one.prompts if name in other.prompts]
    both = {name: (one.prompts[name], other.prompts[name]) for name in names}
    told = {name: pair for name, pair in both.items() if all(each.text is not None for each in pair)}
    if not told:
        why = next(
            (each.refused for pair in both.values() for each in pair if each.refused), "no chat was shown to both"
        )
        return Line(key, what, Finding.UNCHECKED, why)
    unlike = {name: pair for name, pair in told.items() if pair[0].text != pair[1].text}
    split = [name for name, (mine, theirs) in told.items() if name not in unlike and _are_split_otherwise(mine, theirs)]
    figures = {"chats": len(told), "differ": sorted(unlike), "split_otherwise": sorted(split)}
    if len(split) > len(told) * _FEW:
        how = f"the tokenizers split the same text otherwise: {len(split)} of {len(told)} chats, {split[0]!r} is one"
        return Line(key, what, Finding.DIFFERS, how, (), figures)
    if not unlike:
        remark = f"; their tokenizers split {', '.join(map(repr, split))} otherwise" if split else ""
        return Line(key, what, Finding.SAME, f"all {len(told)} chats become the same prompt{remark}", (), figures)
    name, (mine, theirs) = next(iter(unlike.items()))
    how = f"{len(unlike)} of {len(told)} chats; {name!r} {prompts.difference(theirs.text or '', mine.text or '')}"
    return Line(key, what, Finding.DIFFERS, how, (), figures)


def _are_split_otherwise(mine: SeenPrompt, theirs: SeenPrompt) -> bool:
    return None not in (mine.tokens, theirs.tokens) and mine.tokens != theirs.tokens
