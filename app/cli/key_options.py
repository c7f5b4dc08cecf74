"""What is written on the command line about a key, as the fields that `keys[]` and `/admin/keys` have. Pure."""

from __future__ import annotations

import datetime
import re
from typing import Any

NOTHING = ("none", "no", "-")
_BUDGET = re.compile(r"([0-9][0-9_,.]*)([kKmMgG]?)\s+(tokens?|money)\s*(?:per|a|/)\s*(day|week|month)")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_FACTORS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


class OptionError(ValueError):
    """An option that cannot be read. The message is a sentence with its value."""


def fields(
    *,
    team: str | None = None,
    role: str | None = None,
    models: str | None = None,
    days: int | None = None,
    expires: str | None = None,
    priority: str | None = None,
    rpm: str | None = None,
    tpm: str | None = None,
    max_parallel: str | None = None,
    budget: str | None = None,
    now: datetime.datetime,
) -> dict[str, Any]:
    """The fields that were given, in the order of the documentation; None for one that is taken away (`none`, for
    `--models` it is `all`). OptionError for one that cannot be read.
    """
    given: dict[str, Any] = {}
    if models is not None:
        given["models"] = _models(models)
    if role is not None:
        given["role"] = role
    if priority is not None:
        given["priority"] = priority
    if days is not None and expires is not None:
        raise OptionError("--days and --expires say the same: give one of them.")
    if days is not None:
        given["expires"] = (now + datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    elif expires is not None:
        given["expires"] = None if expires in NOTHING else _time(expires)
    if team is not None:
        given["team"] = None if team in NOTHING else team
    for name, value in (("rpm", rpm), ("tpm", tpm), ("max_parallel", max_parallel)):
        if value is not None:
            given[name] = None if value in NOTHING else _count(name, value)
    if budget is not None:
        given["budget"] = None if budget in NOTHING else _budget(budget)
    return given


def seconds(option: str, text: str) -> float:
    """`90`, `90s`, `15m`, `24h`, `7d` as seconds. OptionError for anything else."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise OptionError(f"{option} '{text}' is not a time such as 0, 90s, 15m, 24h or 7d.")
    return float(match[1]) * _UNITS[match[2]]


def limits_in_words(key: Any) -> str:
    """A key's limits on one line, from the fields of `/admin/keys`; "" where it has none."""
    words = [
        f"{key[name]:,} {word}"
        for name, word in (("rpm", "rpm"), ("tpm", "tpm"), ("max_parallel", "at once"))
        if key[name]
    ]
    budget = key["budget"]
    if budget:
        unit = "tokens" if budget.get("tokens") is not None else "money"
        words.append(
            f"{budget[unit]:,g} {unit} per {budget['per']}"
            if unit == "money"
            else f"{budget[unit]:,} {unit} per {budget['per']}"
        )
    return ", ".join(words)


def is_over(expires: str, now: datetime.datetime) -> bool:
    """Whether this end, as `fields` gives it, is not ahead."""
    ends = datetime.datetime.fromisoformat(expires)
    return (ends if ends.tzinfo is not None else ends.replace(tzinfo=datetime.UTC)) <= now


def _models(text: str) -> list[str] | None:
    listed = [model.strip() for model in text.split(",") if model.strip()]
    if listed == ["all"]:
        return None
    # Nothing, as of a variable that is not set, must not open everything.
    if not listed or listed[0] in NOTHING:
        raise OptionError(
            f"--models '{text}' names no model: `all` opens every one, and a key that opens none is ended."
        )
    return listed


def _time(text: str) -> str:
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        raise OptionError(
            f"--expires '{text}' is neither a day (2027-12-31) nor a time (2027-12-31T18:00:00Z)."
        ) from None
    return text


def _count(name: str, text: str) -> int:
    option = f"--{name.replace('_', '-')}"
    match = re.fullmatch(r"([0-9][0-9_,]*)([kKmM]?)", text.strip())
    number = int(re.sub("[_,]", "", match[1])) * _FACTORS[match[2].lower()] if match else 0
    if number < 1:
        raise OptionError(f"{option} '{text}' is not a whole number of at least 1 (or none).")
    return number


def _budget(text: str) -> dict[str, Any]:
    match = _BUDGET.fullmatch(text.strip())
    if match is None:
        raise OptionError(f"--budget '{text}' is not such as '5M tokens per week' or '20 money per month' (or none).")
    try:
        amount = float(re.sub("[_,]", "", match[1])) * _FACTORS[match[2].lower()]
    except ValueError:
        amount = 0.0
    if amount <= 0:
        raise OptionError(f"--budget '{text}' is a budget of nothing.")
    if match[3] == "money":
        return {"money": int(amount) if amount.is_integer() else amount, "per": match[4]}
    return {"tokens": max(1, round(amount)), "per": match[4]}
