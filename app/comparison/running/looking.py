"""The models as they are before a run: made ready, and looked at."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

from app.certificate.certify import AdminClient, look
from app.comparison.question import Question, prompt
from app.comparison.running.asks import drawn_with
from app.comparison.running.controls import servings_of
from app.comparison.running.gateway_client import GatewayClient
from app.comparison.running.run_record import RunOrder, RunProblem, SeenModel

_LOOKS: Final = 20  # for digests: the gateway reads the files of what it has just started beside this
_LOOK_S: Final = 0.5
_NOT_COMPARABLE: Final = 409


class Comparable(NamedTuple):
    """Why the gateway would not compare the models, None where it would; and what there is to say of it."""

    why_not: str | None = None
    notes: tuple[str, ...] = ()


class Looked(NamedTuple):
    """The models in the order asked for, and whether the machine has room for all of them at once."""

    models: tuple[SeenModel, ...]
    fit_together: bool


def look_at(
    names: Sequence[str],
    admin: AdminClient,
    *,
    also: Sequence[str] = (),
    remote_kinds: frozenset[str] = frozenset(),
    report: Callable[[str], None] = lambda text: None,
    pause: Callable[[float], None] = time.sleep,
) -> Looked:
    """Start what does not run, and say what serves each name. `remote_kinds`: kinds of engines that may refuse what
    OpenAI does not have. `also`: names that are asked later. RunProblem for a name that is not there. Blocks: minutes
    where models are large.
    """
    listed = _listed(admin)
    for name in (*names, *also):
        if name not in listed and not (name in also and _is_known(name, listed)):
            known = ", ".join(sorted(listed)) or "none"
            raise RunProblem(f"There is no model {name!r} (the gateway serves: {known}).")
    seen = {}
    for name in names:
        if listed[name]["state"] != "ready":
            report(f"making {name} ready")
        seen[name] = look(name, admin)
    listed = _listed(admin)
    for _ in range(_LOOKS):
        if all(servings_of(listed[name]) or seen[name].file.path is None for name in names):
            break
        pause(_LOOK_S)
        listed = _listed(admin)
    models = tuple(
        SeenModel(
            name=name,
            backend=seen[name].backend,
            kind=seen[name].kind,
            version=seen[name].version,
            quantization=seen[name].quantization,
            context_length=listed[name].get("context_length"),
            parity=listed[name].get("parity"),
            servings=servings_of(listed[name]),
            only_openai=seen[name].kind in remote_kinds,
        )
        for name in names
    )
    return Looked(models, all(listed[name]["state"] == "ready" for name in names))


async def prompt_digest(client: GatewayClient, model: str, question: Question) -> str | None:
    """What stands for the prompt that the model's engine makes of a question; None where it does not tell."""
    reply = await client.ask("/v1/chat/completions/render", {"model": model, "messages": prompt(question)})
    if reply.status != 200:
        return None
    text = reply.value.get("prompt")
    return hashlib.sha256(text.encode()).hexdigest()[:16] if isinstance(text, str) else None


async def comparable(client: GatewayClient, order: RunOrder, questions: Sequence[Question]) -> Comparable:
    """Ask the gateway whether it would compare the models, by the longest question; no answer is waited for."""
    longest = max(questions, key=lambda each: sum(len(str(message.get("content"))) for message in each.messages))
    drawn = drawn_with(order.sampling)
    body = {"models": list(order.models), "messages": prompt(longest), **drawn, "stream": True}
    reply = await client.first_event("/v1/compare", body)
    if reply.status == _NOT_COMPARABLE:
        return Comparable(reply.refusal)
    if reply.status != 200 or not isinstance(reply.value, Mapping):
        return Comparable()  # what is wrong with this one question is no reason against all the others
    settings = reply.value.get("settings") or {}
    other = [f"{name} {settings[name]}" for name in drawn if name in settings and settings[name] != drawn[name]]
    told = tuple(str(each) for each in reply.value.get("warnings") or ())
    if other:
        told = (*told, f"The configuration's overrides draw the answers of all models with {', '.join(other)}.")
    return Comparable(None, told)


def _is_known(name: str, listed: Mapping[str, Any]) -> bool:
    """Whether a name that is only asked is an alias, or one of a pattern's."""
    aliases = {str(alias) for each in listed.values() for alias in each.get("aliases") or ()}
    return any(fnmatchcase(name, each) for each in (*listed, *aliases))


def _listed(admin: AdminClient) -> Mapping[str, Any]:
    models = admin("GET", "/admin/models", None)["models"]
    return {str(each["name"]): each for each in models}
