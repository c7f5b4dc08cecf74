"""What the file says of a team: keys with their limits, what tokens cost, and where all of that is kept."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from app.store import postgresql_url
from app.table import Budget, KeyLimits, Price

Name = Annotated[str, Field(min_length=1, max_length=256)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
Count = Annotated[int, Field(ge=1, le=1 << 50)]
Money = Annotated[float, Field(ge=0, le=1e9)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PriceConfig(_Section):
    """What a million tokens of a model cost, in whatever money you count."""

    input: Money = Field(0.0, description="For a million tokens of prompts.")
    output: Money = Field(0.0, description="For a million tokens of answers.")
    cached: Money | None = Field(
        None, description="For a million tokens of prompts that the engine still had; default: as `input`."
    )

    def price(self) -> Price:
        """The price as the relays get it."""
        return Price(self.input, self.output, self.cached)


class BudgetConfig(_Section):
    """What a key may spend in each day, week or month: either `tokens` or `money`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["tokens"]}, {"required": ["money"]}]})

    tokens: Count | None = Field(None, description="So many tokens, of prompts and answers together.")
    money: Annotated[float, Field(gt=0, le=1e12)] | None = Field(
        None, description="So much money, by the `price` of the models."
    )
    per: Literal["day", "week", "month"] = Field(
        description="In each day, week (from Monday) or month of the calendar, in UTC."
    )

    @model_validator(mode="after")
    def _one_unit(self) -> BudgetConfig:
        if (self.tokens is None) == (self.money is None):
            raise ValueError("needs either `tokens` or `money`" + ("" if self.tokens is None else ", not both"))
        return self

    def budget(self) -> Budget:
        """The budget as the relays get it."""
        if self.tokens is not None:
            return Budget(float(self.tokens), "tokens", self.per)
        return Budget(self.money or 0.0, "money", self.per)


class AuditConfig(_Section):
    """What is kept of who did what here."""

    retention_days: Annotated[int, Field(ge=0, le=36_500)] = Field(
        365, description="For how many days each entry is kept; 0: for ever."
    )


class UsageConfig(_Section):
    """What is kept of each request: who asked which model, tokens, times and how it ended; never what was said."""

    records: bool = Field(True, description="Keep a record of each model request.")
    retention_days: Annotated[int, Field(ge=1, le=36_500)] = Field(
        90, description="For how many days each record is kept; sums by day are kept longer."
    )
    totals_days: Annotated[int, Field(ge=32, le=36_500)] = Field(
        1096, description="For how many days the sums by day, key and model are kept."
    )
    journal_mb: Annotated[int, Field(ge=16, le=1_000_000)] = Field(
        1024, description="Megabytes of disk for records that wait for a store that does not respond."
    )


class ReplacedKey(_Section):
    """A key that was replaced by a new one, and opens the same for a while."""

    sha256: Digest = Field(description="The SHA-256 digest of the old key.")
    until: datetime.datetime = Field(description="When it ends; UTC unless the time has an offset.")

    @field_validator("until")
    @classmethod
    def _with_zone(cls, value: datetime.datetime) -> datetime.datetime:
        return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value

    @field_validator("sha256")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.lower()


class KeyConfig(_Section):
    """A client's key. Only its digest is kept: `modelport keys new` prints both."""

    name: Name = Field(description="Whose key it is; shown in logs.")
    sha256: Digest = Field(description="The SHA-256 digest of the key, 64 hex digits.")
    models: tuple[Name, ...] | None = Field(
        None, min_length=1, description="The models it opens; default: every model."
    )
    role: Literal["user", "admin"] = Field("user", description="`admin` may also see and steer the gateway.")
    expires: datetime.datetime | None = Field(None, description="When it ends; UTC unless the time has an offset.")
    priority: Literal["interactive", "batch"] = Field(
        "interactive",
        description="`batch`: where requests wait for a place at an engine, interactive ones come first; a tenth of it "
        "is left to batches.",
    )
    team: Name | None = Field(None, description="Whom its usage is shown with.")
    rpm: Count | None = Field(None, description="Requests in any 60 seconds; default: no limit.")
    tpm: Count | None = Field(
        None, description="Tokens in any 60 seconds, of prompts and answers together; default: no limit."
    )
    max_parallel: Count | None = Field(None, description="Requests at the same time; default: no limit.")
    budget: BudgetConfig | None = Field(
        None, description="What it may spend: `{tokens: N, per: month}` or `{money: X, per: day}`; default: no limit."
    )
    replaced: tuple[ReplacedKey, ...] = Field(
        (), description="Older keys of the same client that still open the same: `modelport keys rotate` writes them."
    )

    @field_validator("expires")
    @classmethod
    def _with_zone(cls, value: datetime.datetime | None) -> datetime.datetime | None:
        return value.replace(tzinfo=datetime.UTC) if value is not None and value.tzinfo is None else value

    @field_validator("sha256")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.lower()

    def limits(self) -> KeyLimits | None:
        """Its limits as the relays get them; None where it has none."""
        budget = self.budget.budget() if self.budget is not None else None
        limits = KeyLimits(self.rpm, self.tpm, self.max_parallel, budget)
        return None if limits == KeyLimits() else limits


def _of_postgresql(url: SecretStr) -> SecretStr:
    """The URL. ValueError, which does not show it, where it is none of PostgreSQL."""
    if not url.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("is not a URL of PostgreSQL (`postgresql://USER:PASSWORD@HOST:5432/DATABASE`)")
    if (trouble := postgresql_url.trouble(url.get_secret_value())) is not None:
        raise ValueError(trouble)
    return url


class StoreConfig(_Section):
    """Where keys, limits, usage and the audit are kept; a plain URL is the short form of it."""

    url: Annotated[SecretStr, AfterValidator(_of_postgresql)] | None = Field(
        None,
        description="PostgreSQL, for several gateways: `postgresql://USER:PASSWORD@HOST:5432/DATABASE`. "
        "Default: SQLite, a file in the state folder.",
    )
    timeout_s: float = Field(
        2.0, ge=0.1, le=60, description="Seconds that the store may take for one statement before it counts as away."
    )
    key_cache_s: float = Field(
        3600.0, ge=0, le=31_536_000, description="Seconds for which keys of the store are good while it is away."
    )
    assume_gateways: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="How many gateways share the limits while the store is away and none has ever been counted.",
    )
    forget_after_s: float = Field(
        3600.0,
        ge=10,
        le=31_536_000,
        description="Seconds of silence after which a gateway that did not sign off is no longer counted.",
    )

    @property
    def secret_url(self) -> str | None:
        """The URL with its password, for who connects; None: SQLite."""
        return self.url.get_secret_value() if self.url is not None else None


def _store(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


Store = Annotated[StoreConfig, BeforeValidator(_store, json_schema_input_type=str | StoreConfig)]
