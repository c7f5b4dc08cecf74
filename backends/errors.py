"""What can go wrong with an engine, as a tree whose first question is "can the engine have taken the request?"

BackendError
├─ NotTaken          the engine cannot have it; another target may be tried
│  ├─ Unreachable    no connection: refused, unresolvable, TLS, or closed before our first byte
│  │  ├─ Refused     nobody listens at its address
│  │  └─ Lost        an engine of ours that has ended, and is started again
│  ├─ Stale          the endpoint belongs to a start of the engine that is over
│  ├─ NotReady       the engine's own complete 503, or it is not running
│  ├─ GivenUp        it does not run, and is not being started
│  ├─ Saturated      the engine's own complete 429
│  └─ Unsupported    the engine cannot do what the request asks for
└─ Taken             the engine may have it; it is never sent again
   ├─ Disconnected   the connection ended before the response did
   ├─ TimedOut       nothing came within the time allowed
   ├─ Broken         what came is not a valid response: garbage, HTML, a redirect, invalid JSON, too much
   ├─ EngineFailed   the engine reported that it failed: 5xx, an error event
   │  ├─ NotFinite   it computes no numbers: NaN, infinity
   │  └─ NoEffect    an adapter of it answers as its base does
   └─ Rejected       the engine read the request and refuses it: 4xx

Source of the branch rules: docs/decisions.md, "Retries".
"""

from __future__ import annotations


class BackendError(Exception):
    """A failure of one engine, named; the message is fit for a client (no address, no secret, no engine traceback).

    `is_final`: raised by a start, it means that another start would end in the same way until something is changed.
    """

    is_final = False

    def __init__(self, engine: str, message: str) -> None:
        super().__init__(message)
        self.engine = engine
        self.message = message

    @property
    def in_full(self) -> str:
        """The message for the log and the administrator, who may see what a client must not see (a path)."""
        return self.message


class NotTaken(BackendError):
    """The engine cannot have the request; another target may be tried.

    `retry_after_s` is the engine's own `Retry-After` in seconds, None when it gave none.
    """

    def __init__(self, engine: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(engine, message)
        self.retry_after_s = retry_after_s


class Unreachable(NotTaken):
    """No connection could be made, or it was closed before our first byte."""


class Refused(Unreachable):
    """Nothing listens at its address."""


class Lost(Unreachable):
    """An engine that we run has ended; its next start may have the request. `generation`: the number of the start that
    ended.
    """

    def __init__(self, engine: str, message: str, generation: int) -> None:
        super().__init__(engine, message)
        self.generation = generation


class Stale(NotTaken):
    """The endpoint belongs to an earlier start of the engine, so no connection is made."""


class NotReady(NotTaken):
    """The engine is not serving (its own 503, or it is not running)."""


class GivenUp(NotTaken):
    """The engine does not serve, and will not by itself or not before `retry_after_s`. The message says what helps."""


class Saturated(NotTaken):
    """The engine is full (its own 429)."""


class Unsupported(NotTaken):
    """The engine cannot do what the request asks for; another one may. A 400 when there is no other. `param`: the field
    of the request that it is about.
    """

    def __init__(self, engine: str, message: str, *, param: str | None = None) -> None:
        super().__init__(engine, message)
        self.param = param


class Taken(BackendError):
    """The engine may have the request; never send it again."""


class Disconnected(Taken):
    """The connection ended before the response did."""


class TimedOut(Taken):
    """Nothing came within the time allowed; the work was cancelled by closing the connection."""


class Broken(Taken):
    """What came is not a valid response in the API that we use."""


class EngineFailed(Taken):
    """The engine itself reported that it failed."""


class NotFinite(EngineFailed):
    """What it computes are no numbers (NaN, infinity). What it keeps of earlier requests may spoil later ones, so only
    a new start is sure to help. `adapter`: whose answer it was, None for the model's own.
    """

    def __init__(self, engine: str, message: str, adapter: str | None = None) -> None:
        super().__init__(engine, message)
        self.adapter = adapter


class NoEffect(EngineFailed):
    """An adapter is loaded, and answers as its base does."""


class Rejected(Taken):
    """The engine read the request and refuses it. `status` is 4xx; message, `type`, `code` and `param` are those of
    OpenAI's error and fit for the client.
    """

    def __init__(
        self, engine: str, message: str, *, status: int, type_: str, code: str | None, param: str | None = None
    ) -> None:
        super().__init__(engine, message)
        self.status = status
        self.type = type_
        self.code = code
        self.param = param
