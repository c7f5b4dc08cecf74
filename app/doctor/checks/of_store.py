"""The store, and usage records that wait for it. Pure."""

from __future__ import annotations

from typing import Final

from app.doctor.diagnosis import Says, error, ok, warn
from app.doctor.facts import MachineFacts
from app.store import schema
from app.store.checkup import Checkup

# By so much its clock may differ from ours before limits, budgets and the ends of keys are off with it.
CLOCK_S: Final = 2.0
# No request waits for the store, but limits are shared out by what it said last.
SLOW_S: Final = 0.5
MUCH_BYTES: Final = 256 << 20


def store(facts: MachineFacts) -> Says:
    """Whether it answers, its tables, its clock, and who uses it."""
    store = facts.store
    if store is None:
        yield ok("not looked at, as there is no configuration")
        return
    if not store.exists or store.report is None:
        yield ok(f"{store.place}, made at the first start")
        return
    report = store.report
    if report.trouble is not None:
        yield error(report.trouble, _help(report, is_server=store.is_server))
        return
    yield from _troubles(report)
    tables = "without tables yet" if not report.schema else f"schema {report.schema}"
    said = f"{store.place}, {tables}, answers in {1000 * (report.took_s or 0.0):.1f} ms"
    yield ok(f"{said}, gateways: {report.gateways}" if store.is_server and report.gateways is not None else said)


def _help(report: Checkup, *, is_server: bool) -> str:
    if report.schema is not None and report.schema > schema.VERSION:
        return "This version does not start with it."
    if is_server:
        return (
            "The gateway starts without it, with the keys of the file and those that it knows, and goes on trying. "
            "Start the database, or put right what `store` says."
        )
    return "A damaged file is not replaced, as it holds keys: put a copy in its place, or move it away to begin anew."


def _troubles(report: Checkup) -> Says:
    if report.ahead_s is not None and abs(report.ahead_s) > CLOCK_S:
        where = "ahead of" if report.ahead_s > 0 else "behind"
        yield warn(
            f"its clock is {abs(report.ahead_s):.1f} s {where} this machine's",
            "Keys end by the one, budgets begin by the other: let both machines ask a time server.",
        )
    if report.took_s is not None and report.took_s > SLOW_S:
        yield warn(
            f"it takes {report.took_s:.1f} s to answer",
            "No request waits for it, but limits and changed keys come late: look at the database and the network.",
        )
    if report.silent:
        yield warn(
            f"of {report.gateways} gateways {report.silent} have not been heard of for some seconds",
            "Their share of the limits is kept for them until they are back or `store.forget_after_s` is over.",
        )


def usage(facts: MachineFacts) -> Says:
    """What waits on this disk, and what was found damaged."""
    usage = facts.usage
    if usage is None:
        yield ok("no records are waiting")
        return
    if usage.trouble is not None:
        yield error(f"{usage.folder} cannot be looked at: {usage.trouble}", "Give the folder to the gateway's user.")
        return
    if usage.damaged:
        yield warn(
            f"in {usage.folder} are files that could not be read: {', '.join(usage.damaged)}",
            "Their records are in no report; look at the disk, then remove them.",
        )
    size = f"{usage.waiting_bytes / 2**20:.0f} MiB of files for records that wait, in {usage.folder}"
    if usage.waiting_bytes > MUCH_BYTES:
        yield warn(size, "They are brought in when the store answers; see `store`.")
    elif not usage.damaged:
        yield ok(size)
