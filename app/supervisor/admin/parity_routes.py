"""The routes by which a served model is observed, and a certificate about it kept."""

from __future__ import annotations

from typing import Annotated, Any, Protocol, TypeVar

import msgspec
from fastapi import Body, FastAPI

from app.certificate.certificate import Certificate
from app.certificate.observation import Observation, Questions
from app.errors import Problem, bad_request

Answers = dict[int | str, dict[str, Any]]
T = TypeVar("T")


class ParityApi(Protocol):
    """What an administrator may ask of a served model. KeyError: there is no model of that name."""

    async def observe(self, model: str, questions: Questions) -> Observation: ...
    async def keep_certificate(self, model: str, certificate: Certificate) -> Certificate: ...


def add_parity_routes(app: FastAPI, api: ParityApi, responses: Answers) -> None:
    """Add them to the admin application. `responses`: the refusals of routes about a model."""

    @app.post("/admin/models/{name:path}/observe", tags=["admin"], responses=responses)
    async def observe(name: str, body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        """Ask what a served model really does: `prompts`, `answers`, `stops`, `context`, `sampling`, `hashes`; what is
        not named is not asked. Its engine is started if need be.
        """
        questions = _read(body, Questions)
        try:
            seen: dict[str, Any] = msgspec.to_builtins(await api.observe(name, questions))
        except KeyError as exc:
            raise _unknown(name) from exc
        return seen

    @app.post("/admin/models/{name:path}/certificate", tags=["admin"], responses=responses)
    async def keep(name: str, body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        """Keep a certificate (`modelport parity`), which lists of models show for as long as the same is served. One
        that did not check the prompts does not take the place of one that did: then `is_kept` is false.
        """
        certificate = _read(body, Certificate)
        if certificate.model != name:
            raise bad_request(f"model: it is a certificate of {certificate.model!r}, not of {name!r}", param="model")
        try:
            kept = await api.keep_certificate(name, certificate)
        except KeyError as exc:
            raise _unknown(name) from exc
        is_kept = msgspec.structs.replace(kept, model=name) == certificate
        return {"model": name, "parity": kept.summary, "is_kept": is_kept}


def _read(body: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as exc:
        raise bad_request(str(exc)) from exc


def _unknown(name: str) -> Problem:
    return Problem(404, "model_not_found", f"There is no model {name!r}.", param="model")
