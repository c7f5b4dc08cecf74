"""Asking a judge model about every pair of answers, in both orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from app.comparison.judging.judge import Judgement, Matter, judge_body, read_verdict
from app.comparison.running.gateway_client import GatewayClient
from app.comparison.running.run_record import RunProblem
from app.comparison.running.runner import RunProgress, together

_FAILURES: Final = 10  # in a row, of a judge that has judged nothing yet


class JudgeRun:
    """Asks one judge. `keep` is called with each judgement; it may block for a moment."""

    def __init__(
        self,
        client: GatewayClient,
        judge: str,
        keep: Callable[[Judgement], None],
        *,
        seed: int,
        concurrency: int,
        progress: RunProgress,
    ) -> None:
        self._client = client
        self._judge = judge
        self._keep = keep
        self._seed = seed
        self._concurrency = concurrency
        self._progress = progress
        self._done = self._failed = 0

    async def run(self, matters: Sequence[Matter]) -> None:
        """Ask about all of them. RunProblem where it makes no sense to go on; what has been judged is kept."""
        left = iter(matters)

        async def work() -> None:
            for matter in left:
                judgement = await self._judged(matter)
                self._keep(judgement)
                self._done += 1
                self._failed += judgement.error is not None
                self._progress.count(self._done, len(matters), self._failed)
                if self._failed == self._done == _FAILURES:
                    raise RunProblem(
                        f"The judge {self._judge} has judged none of the first {_FAILURES} pairs: {judgement.error} "
                        "Once that is mended, the same command goes on where it was."
                    )

        self._progress.count(0, len(matters), 0)
        await together([work() for _ in range(min(self._concurrency, len(matters)))])

    async def _judged(self, matter: Matter) -> Judgement:
        reply = await self._client.chat(judge_body(self._judge, matter, self._seed))
        names = (matter.question.id, matter.first.model, matter.second.model)
        if reply.error is not None:
            return Judgement(*names, None, error=reply.error, judge=self._judge)
        return Judgement(*names, read_verdict(reply.text), reply.text, judge=self._judge)
