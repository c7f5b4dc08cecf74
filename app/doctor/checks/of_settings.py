"""The configuration, keys, environment, proxies, ports, and the gateway that runs. Pure."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from app import __version__
from app.config.cross_checks import is_loopback
from app.doctor.checks.variables import Unread, misspelt, unread
from app.doctor.diagnosis import Says, error, ok, warn
from app.doctor.facts import MachineFacts, PortFacts

SOON_S: Final = 14 * 86_400.0
_PROXIES: Final = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
_SPARED: Final = ("no_proxy", "NO_PROXY")
_HERE: Final = ("127.0.0.1", "localhost", "::1")


def config(facts: MachineFacts) -> Says:
    """What `modelport check` says, but for programs, which have a check of their own."""
    read = facts.config
    for problem in read.errors:
        yield error(problem.rstrip("."), "Correct it; `modelport check` reads it again.")
    if read.errors:
        return
    notes = [(place, text) for place, text in read.warnings if not place.endswith(".command")]
    where = str(read.source) if read.source is not None else "no file"
    for place, text in notes:
        # What an engine needs is missing: it will not start. What only nobody uses does no harm.
        says = warn if text == "no model uses it" else error
        yield says(f"{where}: {place}: {text}".rstrip("."), "Correct it, or bring here what is missing.")
    if not notes and read.config is not None:
        counts = f"models: {len(read.config.models)}, backends: {len(read.config.backends)}"
        yield ok(f"{where}: {counts}" if read.source is not None else f"no file: the defaults ({counts})")


def keys(facts: MachineFacts) -> Says:
    """Whether a key is needed and there, and how long those that are there will do."""
    read = facts.config.config
    if read is None:
        yield ok("not known without a configuration")
        return
    server = read.server
    addresses = {"": server.host} | (
        {"server.metrics_host ": server.metrics_host} if server.metrics_port is not None else {}
    )
    wide = [f"{setting}'{host}'" for setting, host in addresses.items() if not is_loopback(host)]
    stored = _stored_keys(facts)
    if not read.keys and wide and not stored and read.store.url is not None:
        yield warn(
            f"{wide[0]} is reachable from other machines, and there is no key yet: the gateway lets nobody in",
            "`modelport keys new NAME` makes one in the store.",
        )
        return
    if not read.keys and wide and not stored and facts.gateway is not None:
        yield warn(
            f"{wide[0]} is reachable from other machines, and a gateway runs there without a key (--insecure-no-key)",
            "`modelport keys new NAME` makes one: everybody who reaches the address uses your models.",
        )
        return
    if not read.keys and wide and not stored:
        yield error(
            f"{wide[0]} is reachable from other machines, and there is no key: the gateway does not start",
            "`modelport keys new NAME` makes one; or set API_KEY, or listen on 127.0.0.1.",
        )
        return
    ends = {key.name: key.expires.timestamp() for key in read.keys if key.expires is not None}
    ended = [name for name, end in ends.items() if end <= facts.now]
    renew = "`modelport keys new` makes another; put it into the file and `modelport reload`."
    if read.keys and len(ended) == len(read.keys):
        yield error(f"every key has ended ({', '.join(ended)}): nobody can use the gateway", renew)
    elif ended:
        yield warn(f"ended: {', '.join(ended)}", renew)
    for name, end in ends.items():
        if facts.now < end <= facts.now + SOON_S:
            yield warn(f"'{name}' ends in {max(1, round((end - facts.now) / 86_400))} days", renew)
    if not ended and not any(end <= facts.now + SOON_S for end in ends.values()):
        known = f"keys: {len(read.keys)}" + (f", and {stored} in the store" if stored else "")
        yield ok(known if read.keys or stored else f"none is needed: only this machine reaches {server.host}")


def _stored_keys(facts: MachineFacts) -> int:
    """How many keys the store has, those that were revoked among them; 0 where that is not known."""
    report = facts.store.report if facts.store is not None else None
    return report.rows.get("keys", 0) if report is not None else 0


def environment(facts: MachineFacts) -> Says:
    """Variables that are set and not read. Their values are never shown."""
    unread_ones = [
        *unread(facts.env, facts.config.variables, facts.inspections),
        *misspelt(facts.env),
    ]
    for each in unread_ones:
        yield warn(f"{each.name} is set, and nothing reads it{_instead(each)}", _advice(each))
    if not unread_ones:
        yield ok("every variable that is meant for the gateway is read")


def _instead(each: Unread) -> str:
    if each.backend is not None:
        return f": engines inherit little, and {each.backend} does not get it"
    return f" (nearest: {each.nearest})" if each.nearest is not None else ""


def _advice(each: Unread) -> str:
    if each.backend is not None:
        return f"Write it under `env` of backends.{each.backend} (`{each.name}: ${{{each.name}}}`), or unset it."
    if each.nearest is not None:
        return f"Write {each.nearest}, or unset it."
    return "Unset it, or look for its name in .env.example."


def proxy(facts: MachineFacts) -> Says:
    """A proxy that would catch what clients on this machine ask the gateway."""
    name = next((each for each in _PROXIES if facts.env.get(each)), None)
    if name is None:
        yield ok("no proxy is set for plain HTTP")
        return
    spared = next(filter(None, (facts.env.get(each) for each in _SPARED)), "")
    names = {each.strip().lower() for each in spared.split(",")}
    if "*" in names or any(here in names for here in _HERE):
        yield ok(f"{name} is set, and NO_PROXY spares this machine")
        return
    yield warn(
        f"{name} is set, and NO_PROXY does not spare this machine: clients here would ask the proxy for the gateway",
        "Set NO_PROXY=localhost,127.0.0.1,::1 where clients run; the gateway itself asks engines without a proxy.",
    )


def port(facts: MachineFacts) -> Says:
    """The addresses that the gateway is to listen on."""
    for each in facts.ports:
        address = f"{each.host}:{each.port}"
        if each.trouble is None:
            yield ok(f"{address} is free")
            continue
        if _is_the_gateways(each, facts):
            yield ok(f"{address} is the running gateway's")
            continue
        users = ", ".join(f"{name} (process {pid})" for pid, name in each.users)
        flag = ", or --port" if each.setting == "server.port" else ""
        if users:
            yield error(f"{each.trouble}: {users}", f"End that program, or choose another {each.setting}{flag}.")
        else:
            advice = each.advice.rpartition(": --")[0] or each.advice
            yield error(f"{each.trouble}", f"{advice[:1].upper()}{advice[1:]} ({each.setting}{flag}).")
    if not facts.ports:
        yield ok("any free port" if facts.config.config is not None else "not known without a configuration")


def traces(facts: MachineFacts) -> Says:
    """The collector, where one is configured."""
    where = facts.collector
    if where is None:
        yield ok("none are sent")
    elif where.trouble is not None:
        yield warn(
            f"the collector at {where.where} cannot be reached ({where.trouble}): traces are lost",
            "Start it, or correct tracing.endpoint (OTEL_EXPORTER_OTLP_ENDPOINT).",
        )
    else:
        yield ok(f"the collector at {where.where} takes connections")


def _is_the_gateways(each: PortFacts, facts: MachineFacts) -> bool:
    running = facts.gateway
    if running is None or running.address is None:
        return False
    return urlsplit(running.address).port == each.port or running.pid in {pid for pid, _ in each.users}


def gateway(facts: MachineFacts) -> Says:
    """The gateway that runs on this state folder."""
    running = facts.gateway
    if running is None:
        yield ok("none runs on this state folder")
        return
    who = f"process {running.pid}" if running.pid is not None else "a process"
    if running.trouble is not None:
        yield error(
            f"{who} holds the state folder and does not answer ({running.trouble})",
            "Wait where it is starting or ending; else end it (kill, then kill -9): the next start cleans up.",
        )
        return
    # Of those that somebody else runs, `attached` says it.
    theirs = {each.backend for each in facts.attached if not each.is_up}
    failed = [(name, reason) for name, reason in running.failed if name not in theirs]
    for name, reason in failed:
        yield error(
            f"{name} does not run: {reason}".rstrip("."),
            f"`modelport logs {name}` shows what it wrote; `modelport start {name}` tries again.",
        )
    for reason in running.quarantined:
        yield warn(reason.rstrip("."), "`modelport reload` lifts it.")
    if running.state_folder is not None:
        yield error(f"the state folder cannot be written: {running.state_folder}".rstrip("."), "Make room, or open it.")
    if running.version != __version__:
        yield warn(
            f"{who} is version {running.version}, and this is {__version__}", "Restart it to run what is installed."
        )
    if failed:
        return
    if running.status in ("ok", "starting") or len(running.failed) > len(failed):
        yield ok(f"version {running.version} runs at {running.address} ({who}): {running.status}")
    else:
        yield warn(f"it is {running.status}, at {running.address}", "`modelport status` says which backend, and why.")
