"""Greedy answers of two servings: equal, parted by noise, parted by more; and the figures."""

from __future__ import annotations

import math

import msgspec
import pytest

from app.certificate.answers import compared, figures_of, fork, truncated_kl
from app.certificate.certificate import Finding
from app.certificate.observation import Candidate, Observation, SeenAnswer, SeenStop, SeenToken


def token(*likely: tuple[str, float]) -> SeenToken:
    """A token by the probabilities of what could stand there; the first is taken."""
    top = tuple(Candidate(text, math.log(share)) for text, share in likely)
    return SeenToken(top[0].text, top[0].logprob, tuple(sorted(top, key=lambda each: -each.logprob)))


SURE = token(("a", 0.9), ("b", 0.05))
CLOSE = token(("a", 0.48), ("b", 0.47))
OTHER_WAY = token(("b", 0.48), ("a", 0.47))


def answer(*tokens: SeenToken) -> SeenAnswer:
    return SeenAnswer("".join(each.text for each in tokens), tokens, "stop")


def served(first: SeenAnswer, quantization: str | None = None) -> Observation:
    return Observation("m", "b", "k", "t", quantization=quantization, answers={"one": first})


LONG = (SURE,) * 20


def test_the_same_answers_are_the_same() -> None:
    lines = compared(served(answer(*LONG)), served(answer(*LONG), "F16"))

    assert [line.verdict for line in lines] == [Finding.SAME, Finding.SAME]
    assert lines[1].figures == {"positions": 20, "agreement": 1.0, "kl": 0.0, "apart": 0.0}


def test_a_choice_that_hangs_on_less_than_the_noise_is_no_difference() -> None:
    texts, _ = compared(served(answer(*LONG, CLOSE, SURE)), served(answer(*LONG, OTHER_WAY, SURE, SURE), "F16"))

    assert texts.verdict is Finding.SAME
    assert "parts at token 20" in texts.how
    assert "0.021 nats, less than the number formats differ by" in texts.how


def test_a_choice_that_was_clear_is_a_difference() -> None:
    clear = token(("b", 0.9), ("a", 0.05))

    texts, _ = compared(served(answer(*LONG, SURE)), served(answer(*LONG, clear)))

    assert texts.verdict is Finding.DIFFERS


def test_quantised_texts_that_part_are_figures_and_no_fault() -> None:
    clear = token(("b", 0.6), ("a", 0.2))

    texts, numbers = compared(served(answer(*LONG, SURE)), served(answer(*LONG, clear), "Q4_K - Medium"))

    assert texts.verdict is Finding.UNCHECKED
    assert "quantised" in texts.how
    assert numbers.verdict is Finding.SAME


def test_another_checkpoint_is_further_than_quantising_explains() -> None:
    strange = tuple(token(("a", 0.3), ("c", 0.29)) for _ in LONG)

    _, numbers = compared(served(answer(*LONG)), served(answer(*strange), "Q4_K - Medium"))

    assert numbers.verdict is Finding.DIFFERS


def test_few_positions_and_few_bits_say_nothing() -> None:
    assert compared(served(answer(SURE)), served(answer(SURE)))[1].verdict is Finding.UNCHECKED
    assert compared(served(answer(*LONG)), served(answer(*LONG), "Q2_K"))[1].verdict is Finding.UNCHECKED


def test_what_was_refused_or_tells_no_numbers_is_not_checkable() -> None:
    refused = served(SeenAnswer(refused="It is too busy."))
    bare = served(SeenAnswer("aaa", (SeenToken("a", -1.0),) * 3, "stop"))

    assert [line.how for line in compared(refused, refused)] == ["It is too busy."] * 2
    assert compared(bare, bare)[1].verdict is Finding.UNCHECKED


def test_a_fork_has_its_place_its_texts_and_how_sure_each_is() -> None:
    parted = fork(answer(SURE, CLOSE), answer(SURE, OTHER_WAY))

    assert parted is not None
    assert (parted.at, parted.texts) == (1, ("aa", "ab"))
    assert parted.gaps[0] == pytest.approx(math.log(0.48 / 0.47))
    assert fork(answer(SURE), answer(SURE)) is None


END = token(("", 0.48), (" And", 0.47))
GOES_ON = token((" And", 0.48), ("<|im_end|>", 0.47))
CUT = SeenAnswer("a", (SURE,), "length")


@pytest.mark.parametrize(
    ("one", "other", "gaps"),
    [
        (answer(SURE, END), answer(SURE, GOES_ON, SURE), (0.021, 0.021)),
        (answer(SURE), answer(SURE, GOES_ON, SURE), (None, 0.021)),
        (answer(SURE, GOES_ON, SURE), answer(SURE, END), (0.021, 0.021)),
        (answer(SURE, GOES_ON, SURE), answer(SURE), (0.021, None)),
    ],
    ids=["told", "untold", "told by the other", "untold by the other"],
)
def test_to_end_is_a_choice_like_any_other(
    one: SeenAnswer, other: SeenAnswer, gaps: tuple[float | None, float | None]
) -> None:
    """vLLM tells the token that ends an answer, llama.cpp does not: what else could stand there has it, too."""
    parted = fork(one, other, ("<|im_end|>",))

    assert parted is not None
    assert (parted.at, parted.texts) == (1, (one.text, other.text))
    assert tuple(None if gap is None else round(gap, 3) for gap in parted.gaps) == gaps


def test_an_answer_that_was_cut_has_not_ended() -> None:
    assert fork(CUT, answer(SURE, SURE)) is None
    assert fork(answer(SURE, SURE), CUT) is None
    assert fork(answer(SURE), SeenAnswer("aa", (SURE, SURE), "length")) is not None


def test_an_end_is_judged_as_any_choice() -> None:
    close, clear = answer(*LONG, GOES_ON, SURE), answer(*LONG, token((" And", 0.9), ("", 0.05)))
    ended = answer(*LONG)
    stops = {"<|im_end|>": SeenStop(ends=True)}

    noise, _ = compared(msgspec.structs.replace(served(ended), stops=stops), served(close))
    differs, _ = compared(served(ended), served(clear))
    packed, _ = compared(served(ended), served(clear, "Q4_K - Medium"))

    assert (noise.verdict, differs.verdict, packed.verdict) == (Finding.SAME, Finding.DIFFERS, Finding.UNCHECKED)
    assert "one ends where the other goes on): the choice hangs on 0.021 nats, less than" in noise.how


def test_texts_that_part_within_a_piece_are_not_judged() -> None:
    """How close the choice was is not told: that is no proof that the answers differ."""
    texts, _ = compared(
        served(answer(*LONG, token(("xyz", 0.9)))), served(answer(*LONG, token(("x", 0.9)), token(("q", 0.9))))
    )

    assert texts.verdict is Finding.UNCHECKED
    assert "within what one engine tells in one piece" in texts.how


def test_nothing_is_compared_behind_a_fork() -> None:
    pair = (answer(SURE, CLOSE, SURE), answer(SURE, OTHER_WAY, token(("z", 0.9))))
    figures = figures_of([pair])

    assert figures is not None
    assert figures.positions == 2
    assert figures.agreement == 0.5


def test_the_truncated_divergence_is_a_lower_bound_of_the_true_one() -> None:
    mine, theirs = [0.6, 0.2, 0.1, 0.07, 0.03], [0.5, 0.25, 0.1, 0.05, 0.1]
    true = sum(p * math.log(p / q) for p, q in zip(mine, theirs, strict=True))
    cut = [token(*zip("abc", shares[:3], strict=True)) for shares in (mine, theirs)]

    assert 0 < truncated_kl(*cut) <= true


def test_tokens_that_are_written_alike_are_one_text() -> None:
    """Tokens that end a turn are told as empty texts: two of them, in another order, are no difference."""
    mine = token(("", 0.9), ("", 0.001), ("a", 0.05))
    theirs = token(("", 0.9), ("a", 0.05), ("", 0.001))

    assert truncated_kl(mine, theirs) == pytest.approx(0.0, abs=1e-6)
    figures = figures_of([(answer(mine), answer(theirs))])
    assert figures is not None
    assert figures.noise == pytest.approx(0.0, abs=1e-6)


def test_letters_that_are_told_in_other_pieces_are_the_same_text() -> None:
    """llama.cpp tells several tokens of one letter, and what comes with it, in one piece; vLLM each for itself."""
    whole, one, two = token(("xyz", 0.9)), token(("x", 0.9)), token(("yz", 0.9))

    assert fork(answer(SURE, whole, SURE), answer(SURE, one, two, SURE)) is None
    figures = figures_of([(answer(SURE, whole, SURE), answer(SURE, one, two, SURE))])
    assert figures is not None
    assert (figures.positions, figures.agreement) == (2, 1.0)


def test_they_may_part_in_the_middle_of_a_piece() -> None:
    parted = fork(answer(SURE, token(("xyz", 0.9))), answer(SURE, token(("x", 0.9)), token(("q", 0.9))))

    assert parted is not None
    assert (parted.at, parted.texts, parted.gaps) == (1, ("axyz", "axq"), (None, None))
