"""What is still to be asked, in which order, and with which words. Pure."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, Final, NamedTuple

import msgspec

from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question, prompt
from app.comparison.running.run_record import DrawnWith

# An answer is known by these.
Key = tuple[str, str, int]
# What engines would otherwise add of their own: the model's `generation_config.json`, or their own defaults. These are
# the values that do nothing.
NEUTRAL: Final[dict[str, Any]] = {"presence_penalty": 0, "frequency_penalty": 0}
# OpenAI does not have these; each engine of ours knows those it has, under one of these names.
NEUTRAL_ELSEWHERE: Final[dict[str, Any]] = {"top_k": 0, "min_p": 0, "repetition_penalty": 1, "repeat_penalty": 1}


class Ask(NamedTuple):
    """One question to one model. `repeat` 0 is the answer, others are for the noise floor."""

    question: Question
    model: str
    repeat: int


def key_of(answer: ModelAnswer) -> Key:
    """What an answer is known by."""
    return answer.question, answer.model, answer.repeat


def latest(answers: Iterable[ModelAnswer]) -> dict[Key, ModelAnswer]:
    """Each answer once: a failed one was asked again by a later run, and that counts."""
    return {key_of(answer): answer for answer in answers}


def remaining(
    questions: Sequence[Question],
    models: Sequence[str],
    repeats: int,
    known: Iterable[ModelAnswer],
    *,
    one_by_one: bool = False,
) -> list[Ask]:
    """What has no answer yet. Every question goes to all models before the next one, so that what the machine does
    meanwhile meets all alike, and first everything once. `one_by_one`: each model is asked everything before the next,
    for machines that have no room for all.
    """
    done = {key for key, answer in latest(known).items() if answer.error is None}
    rounds = range(repeats + 1)
    if one_by_one:
        asks = [Ask(question, model, at) for model in models for at in rounds for question in questions]
    else:
        asks = [Ask(question, model, at) for at in rounds for question in questions for model in models]
    return [each for each in asks if (each.question.id, each.model, each.repeat) not in done]


def unmeasured(
    questions: Sequence[Question], models: Sequence[str], known: Iterable[ModelAnswer]
) -> list[tuple[Question, ModelAnswer]]:
    """The good answers whose reference's log-probability is not known, with their questions; model by model."""
    answered = {question.id: question for question in questions if question.answer is not None}
    missing = [
        each
        for each in latest(known).values()
        if each.error is None and each.reference_logprob is None and each.question in answered and each.model in models
    ]
    return [(answered[each.question], each) for each in sorted(missing, key=lambda each: models.index(each.model))]


def chat_body(ask: Ask, sampling: DrawnWith, *, only_openai: bool = False) -> dict[str, Any]:
    """The request for it: everything that the answer is drawn with is said. `only_openai`: only parameters that OpenAI
    has, for servers that refuse others.
    """
    more = {} if only_openai else NEUTRAL_ELSEWHERE
    drawn = {**drawn_with(sampling), "seed": seed_of(sampling.seed, ask.question.id, ask.repeat)}
    return {"model": ask.model, "messages": prompt(ask.question), **drawn, **more}


def seed_of(seed: int, question: str, repeat: int) -> int:
    """The seed of one answer, from 0 below 2 ** 31: the same for all models, another for each question and repeat.

    With one seed for all questions an engine draws the same random number for the first token of each answer, and is
    lucky or unlucky with all of them together (SmolLM2 at temperature 0.7: from 19 to 59 % right, by the seed); every
    interval takes questions for independent. With one seed for all repeats it would say the same again, and hide how
    far its answers differ.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}\n{repeat}\n{question}".encode()).digest()[:4], "big") & 0x7FFFFFFF


def drawn_with(sampling: DrawnWith) -> dict[str, Any]:
    """The parameters of sampling that all requests have in common; `seed` is what each one's own is made from."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
        **NEUTRAL,
    }


def questions_digest(questions: Sequence[Question]) -> str:
    """16 hex digits: the same for the same questions in the same order."""
    return hashlib.sha256(msgspec.json.encode(list(questions))).hexdigest()[:16]


def limited(questions: Sequence[Question], count: int | None, seed: int) -> list[Question]:
    """So many of the questions, drawn evenly from all categories, in the file's order; all where `count` is None."""
    if count is None or count >= len(questions):
        return list(questions)
    chance = random.Random(seed)  # noqa: S311 - which questions are asked is no secret
    drawn: dict[str | None, list[int]] = {}
    for at, question in enumerate(questions):
        drawn.setdefault(question.category, []).append(at)
    for places in drawn.values():
        chance.shuffle(places)
    turns = [each for turn in zip_longest(*drawn.values()) for each in turn if each is not None]
    return [questions[at] for at in sorted(turns[:count])]
