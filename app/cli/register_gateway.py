"""The last steps of a registration: the running gateway takes the new names, and each gets its certificate."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from app.certificate.expectation import folder_digest
from app.certificate.serving import Expectation
from app.cli.admin_client import call, socket_of
from app.conversion.model_folder import read_model_folder
from app.registration.journal import CERTIFICATE, RegistrationError, errors_told
from app.registration.order import slug
from app.registration.registrar import num_ctx
from app.whole_file import write_whole
from backends.model_files.digests import file_digest, weights_digest

if TYPE_CHECKING:
    from app.cli.register_progress import ShownProgress
    from app.reference.reference import Reference
    from app.registration.order import Artifact, Order, ServingOrder
    from app.registration.registrar import ServedAs

_POLL_S: Final = 0.5
_SETTLE_S: Final = 15.0  # a daemon is asked for its models every so often: what it was just given is not known at once
_PATIENCE_S: Final = 1800.0  # an engine's own start_timeout_s ends a start that hangs, long before this


def running(state: Path | None) -> Mapping[str, Any] | None:
    """`/admin/status` of the gateway that runs with this state folder; None where none does."""
    import httpx

    transport = httpx.HTTPTransport(uds=str(socket_of(state)))
    try:
        with httpx.Client(transport=transport, base_url="http://gateway", timeout=30.0) as client:
            status: dict[str, Any] = client.get("/admin/status").raise_for_status().json()
            return status
    except (httpx.HTTPError, OSError, ValueError):
        return None


def running_config(state: Path | None) -> str | None:
    """The configuration of the gateway that runs with this state folder; None where none runs."""
    status = running(state)
    return None if status is None else str(status.get("config") or "no configuration file")


def reloaded(config: Path, state: Path | None, tell: ShownProgress) -> bool:
    """Have the running gateway read its configuration again; returns whether one runs with this file."""
    status = running(state)
    if status is None:
        return False
    theirs = status.get("config")
    if theirs is None or Path(theirs).resolve() != config.resolve():
        tell.say(f"The running gateway's configuration is {theirs or 'no file'}, not {config}: it is not reloaded.")
        return False
    tell.step("reloading the gateway")
    call("POST", "/admin/reload", state)
    return True


def stopped(config: Path, backends: Sequence[str], state: Path | None) -> bool:
    """Stop these backends of the running gateway; returns whether one runs with this file."""
    theirs = (running(state) or {}).get("config")
    if theirs is None or Path(theirs).resolve() != config.resolve():
        return False
    for name in backends:
        call("POST", f"/admin/backends/{quote(name, safe='')}/stop", state)
    return True


def in_force(order: Order, state: Path | None, tell: ShownProgress) -> dict[str, dict[str, Any]] | None:
    """Reload and wait until each name is served or has failed: its state, reason and backends by name; None where no
    gateway runs with this file.
    """
    if not reloaded(order.config, state, tell):
        return None
    began, last = time.monotonic(), ""
    since: dict[str, float] = {}
    for backend in (*_daemons(order, state), *_stopped(order, state)):
        call("POST", f"/admin/backends/{quote(backend, safe='')}/start", state)
    while True:
        listed = call("GET", "/admin/models", state)["models"]
        models = {str(each["name"]): each for each in listed}
        ours = {each.name: _seen(models.get(each.name)) for each in order.servings}
        said = ", ".join(f"{name}: {each['reason'] or each['state']}" for name, each in ours.items())
        if said != last:
            tell.step(f"waiting for the engines: {said}")
            last = said
        failing = [name for name, each in ours.items() if each["state"] == "failed"]
        since = {name: since.get(name, time.monotonic()) for name in failing}
        is_new = any(time.monotonic() - at < _SETTLE_S for at in since.values())
        if all(each["is_settled"] for each in ours.values()) and not is_new:
            break
        if time.monotonic() - began > _PATIENCE_S:
            tell.say(f"Not in force after {_PATIENCE_S:.0f} s; `modelport status` says why.")
            break
        time.sleep(_POLL_S)
    seconds = time.monotonic() - began
    tell.say(f"In force after {seconds:.1f} s: " + ", ".join(f"{name} {each['state']}" for name, each in ours.items()))
    return ours


def _seen(model: Mapping[str, Any] | None) -> dict[str, Any]:
    if model is None:
        return {"state": "starting", "reason": "not listed yet", "backends": [], "is_settled": False}
    change = model.get("replacement")
    state, reason = str(model["state"]), model.get("reason")
    if change is not None and change["state"] == "failed":
        state, reason = "failed", change["reason"]
    is_settled = state in ("ready", "failed", "sleeping", "stopped") and (change is None or state == "failed")
    return {"state": state, "reason": reason, "backends": list(model["backends"]), "is_settled": is_settled}


def _stopped(order: Order, state: Path | None) -> list[str]:
    """The backends of these servings that were stopped by hand, or by `unregister`: reloading does not start them."""
    names = {each.name for each in order.servings}
    listed = call("GET", "/admin/models", state)["models"]
    ours = [each for each in listed if each["name"] in names and each["state"] == "stopped"]
    return [str(backend) for each in ours for backend in each["backends"]]


def _daemons(order: Order, state: Path | None) -> list[str]:
    """The backends of the gateway that are the daemons of these servings."""
    urls = {each.url for each in order.servings if each.url}
    backends = call("GET", "/admin/status", state)["health"]["backends"] if urls else ()
    return [str(each["name"]) for each in backends if str(each.get("url") or "").rstrip("/") in urls]


def proved(
    order: Order,
    artifacts: Mapping[ServingOrder, Artifact],
    trained: ServedAs,
    trained_on: Reference,
    folder: Path,
    state: Path | None,
    tell: ShownProgress,
) -> list[dict[str, Any]]:
    """The certificate of each name, kept by the gateway and written into the registration's folder."""
    from app.certificate import report
    from app.certificate.certify import certify

    client = partial(_asked, state)
    certificates = []
    for serving in order.servings:
        expected = _expected(order, serving, artifacts[serving], trained)
        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        made = certify(serving.name, trained_on, client, expected=expected, report=tell.step, date=date)
        tell.say(f"Certificate of {report.heading(made)}")
        for what, verdict, how in report.rows(made):
            tell.say(f"  {what}: {verdict}: {how}" if how else f"  {what}: {verdict}")
        for suffix, text in ((".json", report.as_json(made)), (".md", report.as_markdown(made))):
            path = folder / f"{CERTIFICATE}{slug(serving.name)}{suffix}"
            with errors_told(path):
                write_whole(path, text.encode())
        certificates.append({"model": made.model, "failed": made.failed, "summary": made.summary, "file": str(path)})
    return certificates


def _asked(state: Path | None, method: str, path: str, body: Any) -> Any:
    return call(method, path, state, body=body, timeout_s=_PATIENCE_S)


def _expected(order: Order, serving: ServingOrder, artifact: Artifact, trained: ServedAs) -> Expectation:
    """What the certificate holds the serving against beside its prompts. Blocks: it reads the weights."""
    length = order.context
    if serving.takes == "daemon":
        length = num_ctx(order, trained)
    sampling = dict(trained.sampling.values)
    if serving.takes == "adapter":
        return Expectation(length, sampling)
    if serving.takes == "folder":
        return Expectation(length, sampling, sha256=folder_digest(artifact.path))
    try:
        digest, source = file_digest(artifact.path), weights_digest(read_model_folder(order.source).weights)
    except OSError as exc:
        raise RegistrationError(f"{exc.filename or artifact.path} cannot be read: {exc.strerror or exc}") from exc
    return Expectation(length, sampling, digest, source)
