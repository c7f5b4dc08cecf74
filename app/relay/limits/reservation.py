"""What one request holds of its key's allowance, from before it waits for an engine until it is over; and what it came
to in the end (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from app.dialects.usage import Usage
from app.errors import TABLE
from app.relay.planning.token_estimate import NO_TOKENS, TokenEstimate, estimate
from backends.errors import NotTaken

if TYPE_CHECKING:
    from app.relay.limits.key_allowance import KeyAllowance
    from app.relay.planning.plan import RequestPlan

# How a request ends that no engine has taken.
NOT_TAKEN: Final = frozenset(code for kind, (_, code, _) in TABLE.items() if issubclass(kind, NotTaken))
# How one ends that somebody else than its client has failed at.
_OURS: Final = frozenset(code for _, code, _ in TABLE.values()) - NOT_TAKEN
_REFUSED: Final = "engine_rejected"


def is_worked_on(ended: str, usage: Usage, was_sent: bool) -> bool:
    """Whether an engine has worked on a request, by how it `ended` ("ok", an outcome, "client_left", …). One that it
    refuses, or of which it fails before the first token, comes to nothing."""
    if not was_sent or ended in NOT_TAKEN:
        return False
    return bool(usage.output_tokens or usage.input_tokens) or not (ended == _REFUSED or ended in _OURS)


def tokens_spent(ended: str, usage: Usage, estimated: TokenEstimate) -> int:
    """The tokens of a request that an engine had. What an engine counts is taken as it is. Where it did not count the
    prompt, the estimate stands for it; a whole answer whose engine counts nothing at all is what was estimated.
    """
    prompt, answer, _ = estimated
    if usage.input_tokens:
        return (usage.input_tokens + usage.output_tokens) if estimated is not NO_TOKENS else 0
    if usage.output_tokens:
        return prompt + usage.output_tokens
    if not is_worked_on(ended, usage, was_sent=True):
        return 0
    return prompt + answer if ended == "ok" else prompt


class Reservation(msgspec.Struct, gc=False):
    """Made by `KeyAllowance.take`; `end` is called once. `slot`: under which it was drawn; `tokens`, `budget`: what was
    spent for it; `place`: 1 where it has one of the places of a key that may have only so many at a time, else 0;
    `assumed`: the tokens of an answer that nobody bounds.
    """

    allowance: KeyAllowance
    slot: float
    tokens: float
    budget: float
    place: int
    assumed: int

    def end(self, ended: str, usage: Usage, was_sent: bool, plan: RequestPlan) -> None:
        """The request is over: give back what it did not come to. `was_sent`: to an engine."""
        allowance = self.allowance
        if self.place:
            allowance.leave()
        if not was_sent or ended in NOT_TAKEN:
            allowance.settle(self.slot, -1.0, -self.tokens, -self.budget)
        elif self.tokens:
            if usage.input_tokens:  # as nearly always
                more = usage.input_tokens + usage.output_tokens - self.tokens
            else:
                more = tokens_spent(ended, usage, estimate(plan, self.assumed)) - self.tokens
            if more or self.budget:
                allowance.settle(self.slot, 0.0, more, -self.budget)
