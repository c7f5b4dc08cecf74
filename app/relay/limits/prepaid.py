"""Small requests of one key that are paid for ahead of need, so that letting one through is to count it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from app.dialects.usage import Usage
from app.dialects.validation.messages import NOTHING
from app.relay.limits.reservation import NOT_TAKEN, tokens_spent
from app.relay.planning.plan import OPERATIONS, RequestPlan
from app.relay.planning.token_estimate import BYTES_PER_TOKEN, SMALL_BYTES, answer_bound, estimate

if TYPE_CHECKING:
    from app.relay.limits.key_allowance import KeyAllowance
    from app.table import PublicModel

CHAT: Final = OPERATIONS["/v1/chat/completions"]
# No longer answer is a small request's.
SMALL_ANSWER: Final = 4096
# Fewer are not paid for ahead: it costs as much as letting three through one by one.
FEWEST: Final = 16
MOST: Final = 4096
_whole: Final = msgspec.json.Decoder(int)


class SmallRequest(msgspec.Struct, frozen=True, gc=False):
    """The largest chat that is let through without being looked at: of the same model, its body up to `most_bytes`,
    its answer up to `most_answer` tokens and more than half as many by what it asks for, or, where `may_be_unbounded`,
    by what is assumed for one that asks for nothing. `tokens`: what it may come to.
    """

    model: PublicModel
    most_bytes: int
    most_answer: int
    may_be_unbounded: bool

    @property
    def tokens(self) -> int:
        """Of its prompt and its answer, as `estimate` has them."""
        return self.most_bytes // BYTES_PER_TOKEN + self.most_answer


def small_like(plan: RequestPlan, assumed: int) -> SmallRequest | None:
    """What is as small as this request, rounded up to powers of two; None where it is not small, or says in more than
    one way how long its answer may be."""
    if plan.operation is not CHAT or plan.choices != 1 or len(plan.body) > SMALL_BYTES:
        return None
    model = plan.resolved.model
    if model.rules.overrides:
        return None
    default = model.rules.defaults.get("max_tokens")
    unbounded = default if isinstance(default, int) and default > 0 else assumed
    answer = max(answer_bound(plan) or assumed, 1)
    if answer > SMALL_ANSWER:
        return None
    most = 1 << (answer - 1).bit_length()
    return SmallRequest(model, 1 << (len(plan.body) - 1).bit_length(), most, most // 2 < unbounded <= most)


class Prepaid:
    """So many small requests of one key are paid for, each as the largest that is small. They settle what they came to
    as any other does. Each has a place of its own (`max_parallel`), which is counted when it is let through.

    `left`: not let through yet; `ended`, `used`: how many are over, and the tokens that those came to; `undone`: of
    those that no engine took. Running totals, of which `KeyAllowance` tells the supervisor.
    """

    __slots__ = (
        "_allowance",
        "_assumed",
        "_may_be_unbounded",
        "_model",
        "_most_answer",
        "_most_bytes",
        "_place",
        "_too_short",
        "budget",
        "ended",
        "left",
        "running",
        "slot",
        "tokens",
        "undone",
        "used",
    )

    def __init__(
        self, allowance: KeyAllowance, small: SmallRequest, slot: float, count: int, budget: float, assumed: int
    ) -> None:
        self._allowance = allowance
        self._model = small.model
        self._most_bytes, self._most_answer, self._may_be_unbounded = (
            small.most_bytes,
            small.most_answer,
            small.may_be_unbounded,
        )
        self._too_short = small.most_answer // 2
        self._assumed = assumed
        self._place = allowance.place
        self.slot = slot
        self.tokens = float(small.tokens) if allowance.counts_tokens else 0.0
        self.budget = budget
        self.left = count
        self.running = count  # and those that are left
        self.ended = self.undone = 0
        self.used = 0.0

    def __repr__(self) -> str:
        return f"<Prepaid left={self.left} running={self.running - self.ended - self.left}>"

    def take(self, plan: RequestPlan) -> bool:
        """Let this request through; False where none is left, it is not small, or there is no place."""
        asked = plan.parameters
        if not self.left or len(plan.body) > self._most_bytes or plan.resolved.model is not self._model:
            return False
        if plan.operation is not CHAT or plan.choices != 1:
            return False
        raw = asked.max_tokens
        if asked.max_completion_tokens is not NOTHING:
            if raw is not NOTHING:
                return False
            raw = asked.max_completion_tokens
        if raw is not NOTHING:
            try:
                if not self._too_short < _whole.decode(raw) <= self._most_answer:
                    return False
            except msgspec.DecodeError:  # of another type
                return False
        elif not self._may_be_unbounded:
            return False
        allowance = self._allowance
        running = allowance.running + self._place
        if running > allowance.peak:
            return False
        allowance.running = running
        self.left -= 1
        return True

    def end(self, ended: str, usage: Usage, was_sent: bool, plan: RequestPlan) -> None:
        """One of them is over. `was_sent`: to an engine."""
        self.ended += 1
        if usage.input_tokens:  # as nearly always
            self.used += usage.input_tokens + usage.output_tokens
        elif not was_sent or ended in NOT_TAKEN:
            self.undone += 1
        else:
            self.used += tokens_spent(ended, usage, estimate(plan, self._assumed))
        allowance = self._allowance
        if allowance.leaving and self._place:
            allowance.leave()
        else:
            allowance.running -= self._place

    def settled(self) -> tuple[float, float, float]:
        """What those that are over since the last call came to: requests, tokens and budget more than what was paid
        (negative: less)."""
        ended, undone, used = self.ended, self.undone, self.used
        self.ended, self.undone, self.used = 0, 0, 0.0
        self.running -= ended
        return float(-undone), (used - ended * self.tokens if self.tokens else 0.0), -ended * self.budget
