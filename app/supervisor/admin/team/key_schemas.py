"""What is asked and answered about keys, as types. Their docstrings are what `/openapi.json` says of them."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.config.team import BudgetConfig, Count, Digest, Name
from app.store.tables.keys import KeyTerms, StoredKey, changed_terms
from app.supervisor.team.key_orders import FileKey
from app.table import Budget, KeyLimits

# As part of a path and of a line in a table.
KeyName = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$", max_length=256)]
MOST_GRACE_S = 366 * 86_400.0


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Terms(_Order):
    """What a key opens and may use, each as `keys[]` in the configuration has it; null: none, no limit."""

    team: Name | None = None
    role: Literal["user", "admin"] = "user"
    models: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    expires: datetime.datetime | None = None
    priority: Literal["interactive", "batch"] = "interactive"
    rpm: Count | None = None
    tpm: Count | None = None
    max_parallel: Count | None = None
    budget: BudgetConfig | None = None

    @field_validator("expires")
    @classmethod
    def _with_zone(cls, value: datetime.datetime | None) -> datetime.datetime | None:
        return value.replace(tzinfo=datetime.UTC) if value is not None and value.tzinfo is None else value

    def changes(self) -> dict[str, Any]:
        """The members that were given, as `app.store.tables.keys.changed_terms` takes them."""
        given = {name: getattr(self, name) for name in self.model_fields_set & set(_MEMBERS)}
        if isinstance(given.get("expires"), datetime.datetime):
            given["expires"] = given["expires"].timestamp()
        if isinstance(given.get("budget"), BudgetConfig):
            given["budget"] = given["budget"].budget()
        return given


_MEMBERS = ("name", *_Terms.model_fields)


class NewKey(_Terms):
    """A key to be made. `sha256`: the digest of one that was made elsewhere; without it the gateway makes one, and
    answers it this one time.
    """

    name: KeyName
    sha256: Digest | None = None

    def terms(self) -> KeyTerms:
        """As the store keeps them."""
        return changed_terms(KeyTerms(self.name), self.changes())


class KeyEdit(_Terms):
    """Changes of a key: the members that are there, and no others."""

    name: KeyName | None = None


class Rotation(_Order):
    """A new secret for a key. `grace_s`: seconds for which the old one still works; `sha256`: as of a new key."""

    grace_s: Annotated[float, Field(ge=0, le=MOST_GRACE_S)] = 86_400.0
    sha256: Digest | None = None


class SecretAnswer(BaseModel):
    """One secret of a key, of which nobody has more than the digest. `ends`: of one that was replaced."""

    created: datetime.datetime | None
    ends: datetime.datetime | None


class KeyAnswer(BaseModel):
    """A key. `place`: where it is written: keys of the `file` and of the `environment` (API_KEY) are changed there.
    `state`: whether it opens anything now.
    """

    id: str
    name: str
    place: Literal["store", "file", "environment"]
    state: Literal["good", "expired", "revoked"]
    team: str | None
    role: Literal["user", "admin"]
    models: tuple[str, ...] | None
    priority: Literal["interactive", "batch"]
    rpm: int | None
    tpm: int | None
    max_parallel: int | None
    budget: BudgetConfig | None
    created: datetime.datetime | None
    changed: datetime.datetime | None
    expires: datetime.datetime | None
    revoked: datetime.datetime | None
    secrets: tuple[SecretAnswer, ...]

    @classmethod
    def of_store(cls, key: StoredKey, now: float) -> KeyAnswer:
        """A key of the store, as it is at `now` (Unix seconds)."""
        is_over = key.terms.expires is not None and key.terms.expires <= now
        return cls(
            **_terms(key.terms),
            id=key.id,
            place="store",
            state="revoked" if key.revoked is not None else "expired" if is_over else "good",
            created=_time(key.created),
            changed=_time(key.changed),
            revoked=_time(key.revoked),
            secrets=tuple(SecretAnswer(created=_time(each.created), ends=_time(each.ends)) for each in key.secrets),
        )

    @classmethod
    def of_file(cls, key: FileKey, now: float) -> KeyAnswer:
        """A key of the configuration."""
        is_over = key.terms.expires is not None and key.terms.expires <= now
        return cls(
            **_terms(key.terms),
            id=key.terms.name,
            place=key.place,
            state="expired" if is_over else "good",
            created=None,
            changed=None,
            revoked=None,
            secrets=tuple(SecretAnswer(created=None, ends=_time(end)) for end in key.ends),
        )


class KeyMade(BaseModel):
    """A key whose secret was made: `key` is that secret, shown only now; null where only its digest was given."""

    key: str | None
    entry: KeyAnswer


class KeysAnswer(BaseModel):
    """All keys: those of the configuration, of the store, and those that were revoked lately. `store`: where keys are
    kept; `store_down`: why it does not answer, null while it does: then its keys are as they were last known.
    """

    data: list[KeyAnswer]
    store: str
    store_down: str | None


def _terms(terms: KeyTerms) -> dict[str, Any]:
    limits: KeyLimits = terms.limits
    return {
        "name": terms.name,
        "team": terms.team,
        "role": terms.role,
        "models": terms.models,
        "priority": terms.priority,
        "rpm": limits.rpm,
        "tpm": limits.tpm,
        "max_parallel": limits.max_parallel,
        "budget": _budget(limits.budget),
        "expires": _time(terms.expires),
    }


def _budget(budget: Budget | None) -> BudgetConfig | None:
    if budget is None:
        return None
    if budget.unit == "tokens":
        return BudgetConfig(tokens=int(budget.amount), per=budget.per)
    return BudgetConfig(money=budget.amount, per=budget.per)


def _time(seconds: float | None) -> datetime.datetime | None:
    return None if seconds is None else datetime.datetime.fromtimestamp(seconds, datetime.UTC)
