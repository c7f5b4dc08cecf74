"""What is asked of a database, the same for SQLite and PostgreSQL.

    StoreError        the store refuses for good: a statement that it does not know, a schema that is newer than we are
    └── StoreDown     not reachable, too slow or busy: the same may succeed later

There is one text of SQL for both. Placeholders are `$1`, `$2` …; columns are TEXT, BIGINT or DOUBLE PRECISION; times
are Unix seconds. `store_time()` is the store's own clock in SQL. A SUM of BIGINT is an int on both. Texts are ordered
as bytes only in Python: a server orders them by its own rules.

A transaction that changes rows which others may change locks them first, with an UPDATE: that is the one way that both
know. So that no two wait for each other, tables are locked in the order of `schema.LOCK_ORDER`, and rows of one table
in the order of their keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol, TypeAlias

Value: TypeAlias = str | int | float | bytes | None
# A row by the names of its columns.
Row: TypeAlias = Mapping[str, Any]
# How long one statement, or the wait for a free connection, may take unless a configuration says otherwise.
TIMEOUT_S = 2.0
# How long what is not in anybody's way may take: a report over all usage, a migration of the schema.
LONG_S = 120.0


def storable(value: Value) -> Value:
    """The value as both databases can keep it: characters that PostgreSQL has no place for, or that are no characters,
    become the replacement character. Texts that clients choose, such as names of models, may hold them.
    """
    if type(value) is not str or (value.isascii() and "\x00" not in value):
        return value
    return value.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class StoreError(Exception):
    """The store refuses, and would again. The message is one sentence without a secret."""


class StoreDown(StoreError):
    """The store could not be reached, or did not answer in time.

    `may_be_done`: what was asked for may have happened all the same, since the connection was lost while it was being
    committed.
    """

    def __init__(self, reason: str, *, may_be_done: bool = False) -> None:
        super().__init__(f"{reason}; it may have been done all the same" if may_be_done else reason)
        self.reason = reason
        self.may_be_done = may_be_done


class Statements(Protocol):
    """What statements can be given to. Every method raises StoreDown or StoreError, and ends within the time limit."""

    async def fetch(self, sql: str, *args: Value) -> Sequence[Row]:
        """The rows of a SELECT, or of a RETURNING clause."""
        ...

    async def execute(self, sql: str, *args: Value) -> int:
        """Carry out one statement. Returns how many rows it has inserted, changed or removed."""
        ...

    async def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """Carry out one statement for each of these rows; outside of a transaction all of them or none."""
        ...

    async def notify(self, topic: str) -> None:
        """Tell everybody who listens, on all gateways; inside of a transaction once it is committed."""
        ...


class Database(Statements, Protocol):
    """A store. It connects by itself when it is first used, and again after it was lost. One event loop uses it."""

    @property
    def dialect(self) -> Literal["sqlite", "postgresql"]:
        """Where two texts of SQL cannot be avoided: which is spoken."""
        ...

    @property
    def place(self) -> str:
        """Where it is, for people: a path or `HOST:PORT/DATABASE`; never with a user or a password."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Statements]:
        """A transaction: committed at the end of the `with` block, taken back where an exception leaves it."""
        ...

    def alone(self) -> AbstractAsyncContextManager[Statements]:
        """A transaction that excludes every other one in here, over all gateways; each statement has LONG_S."""
        ...

    async def fetch_long(self, sql: str, *args: Value) -> Sequence[Row]:
        """As `fetch`, for what may take long (LONG_S), on a connection of its own: nobody else waits for it."""
        ...

    def listen(self, callback: Callable[[str], object]) -> None:
        """Call `callback` with the topic of each notification from now on, and with "" when any may have been missed.
        A topic is told at least once to every other gateway that is connected; it may be told to its sender, too.
        """
        ...

    async def aclose(self) -> None:
        """End every connection. Nothing is raised."""
        ...
