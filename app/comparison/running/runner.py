"""Asking everything that is left: bounded, watched, each answer written down before the next is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol
from urllib.parse import quote

from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question
from app.comparison.running.asks import Ask, chat_body
from app.comparison.running.gateway_client import ChatReply, GatewayClient
from app.comparison.running.likelihood import Likelihood, reference_likelihood
from app.comparison.running.run_record import DrawnWith, RunProblem

_FAILURES: Final = 10  # in a row, of a model that has answered nothing yet


class ServingChanged(RunProblem):
    """Answers of a model come from other bytes than before: they are not of one model any more."""


class RunProgress(Protocol):
    """Shows what a run is at."""

    def step(self, text: str) -> None: ...
    def count(self, done: int, total: int, failed: int) -> None: ...
    def waiting(self, why: str) -> None: ...


class AnswerRun:
    """Asks one run's questions. `servings`: by model the digests that its answers may be made from; empty where nobody
    knows yet, then the first answer decides. `keep` is called with each answer; it may block for a moment, for nobody
    but this run is served by the loop. `unlikely`: by model why its log-probabilities are not known. `only_openai`:
    models that are told nothing that OpenAI does not have.
    """

    def __init__(
        self,
        client: GatewayClient,
        sampling: DrawnWith,
        servings: Mapping[str, Sequence[str]],
        keep: Callable[[ModelAnswer], None],
        *,
        likelihood: bool,
        concurrency: int,
        progress: RunProgress,
        only_openai: Collection[str] = (),
    ) -> None:
        self._client = client
        self._sampling = sampling
        self._keep = keep
        self._likelihood = likelihood
        self._concurrency = concurrency
        self._progress = progress
        self._only_openai = only_openai
        self._failures: dict[str, int] = {}
        self.servings = {model: tuple(known) for model, known in servings.items()}
        self.unlikely: dict[str, str] = {}
        self.failed = 0
        self._left: Iterator[Ask] = iter(())
        self._done = self._total = 0

    async def run(self, asks: Sequence[Ask]) -> None:
        """Ask all of them. RunProblem where it makes no sense to go on; what has been answered is kept."""
        self._left, self._done, self._total = iter(asks), 0, len(asks)
        self._progress.count(0, self._total, 0)
        await together([self._work() for _ in range(min(self._concurrency, len(asks)))])

    async def measure(self, unmeasured: Sequence[tuple[Question, ModelAnswer]]) -> None:
        """Ask how likely the reference answers are, of answers that are there already; those that are told are kept
        with the answer once more.
        """
        left, total = iter(unmeasured), len(unmeasured)
        done = 0

        async def work() -> None:
            nonlocal done
            for question, answer in left:
                likely = await self._likely(question, answer.model)
                if likely.logprob is not None:
                    self._keep(replace(answer, reference_logprob=likely.logprob, reference_tokens=likely.tokens))
                done += 1
                self._progress.count(done, total, 0)

        self._progress.count(0, total, 0)
        await together([work() for _ in range(min(self._concurrency, total))])

    async def _work(self) -> None:
        for ask in self._left:
            answer = await self._answered(ask)
            self._keep(answer)
            self._done += 1
            self.failed += answer.error is not None
            self._progress.count(self._done, self._total, self.failed)
            self._count_failures(answer)

    async def _answered(self, ask: Ask) -> ModelAnswer:
        body = chat_body(ask, self._sampling, only_openai=ask.model in self._only_openai)
        reply = await self._client.chat(body)
        self._watch(ask.model, reply)
        error = reply.error
        if error is None and reply.model not in (None, quoted(ask.model)):
            error = f"{reply.model} answered in its place"
        if error is not None:
            return ModelAnswer(ask.question.id, ask.model, ask.repeat, serving=reply.serving, error=error)
        likely = await self._likely(ask.question, ask.model)
        return ModelAnswer(
            question=ask.question.id,
            model=ask.model,
            repeat=ask.repeat,
            text=reply.text,
            reasoning=reply.reasoning,
            finish_reason=reply.finish_reason,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            first_token_s=reply.first_token_s,
            seconds=reply.seconds,
            serving=reply.serving,
            reference_logprob=likely.logprob,
            reference_tokens=likely.tokens,
        )

    async def _likely(self, question: Question, model: str) -> Likelihood:
        if not self._likelihood or question.answer is None or model in self.unlikely:
            return Likelihood()
        likely = await reference_likelihood(self._client, model, question)
        if likely.is_never and likely.why is not None:
            self.unlikely[model] = likely.why
        return likely

    def _watch(self, model: str, reply: ChatReply) -> None:
        if reply.serving is None or reply.error is not None:
            return
        known = self.servings.get(model) or (reply.serving,)
        self.servings[model] = known
        if reply.serving not in known:
            raise ServingChanged(changed(model, known, reply.serving))

    def _count_failures(self, answer: ModelAnswer) -> None:
        """A model that only fails is not asked a thousand times."""
        if answer.error is None:
            self._failures[answer.model] = -1
        elif self._failures.get(answer.model, 0) >= 0:
            self._failures[answer.model] = self._failures.get(answer.model, 0) + 1
        if self._failures.get(answer.model, 0) == _FAILURES:
            raise RunProblem(
                f"{answer.model} answered none of its first {_FAILURES} questions: {answer.error} Once that is mended, "
                "the same command goes on where it was."
            )


def changed(model: str, known: Sequence[str], now: str) -> str:
    """What is said where a model's answers are made from something else than before."""
    return (
        f"what {model!r} answers with has changed since the comparison began (serving "
        f"{' or '.join(known)}, now {now}): "
        "its answers are of two models, so the comparison ends here; begin it anew"
    )


def quoted(name: str) -> str:
    """A public name as the gateway's headers have it."""
    return name if name.isascii() and name.isprintable() else quote(name)


async def together(work: Sequence[Coroutine[object, object, None]]) -> None:
    """Run coroutines beside each other; the first that fails ends the others, and its error is raised."""
    tasks = [asyncio.create_task(each) for each in work]
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        failed = [task for task in tasks if task.done() and not task.cancelled() and task.exception() is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in failed:
        task.result()
