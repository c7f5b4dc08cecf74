"""From what children say to figures: perplexity, divergence, bounds and the choice."""

from __future__ import annotations

import math
import random

import pytest

from app.quant_report.choice import recommend
from app.quant_report.figures import Estimate, Quality, Row, Scores, Speed, quality
from app.quant_report.lower_bounds import bounds
from app.quant_report.windows import windows

CUT = windows([range(401)], [], size=64, stride=32)
SPEED = Speed(100.0, 10.0, 1_000_000)


def scores(extra: float, seed: int = 1) -> Scores:
    chance = random.Random(seed)
    nll = tuple(chance.expovariate(0.5) + extra for _ in range(400))
    return Scores(nll, tuple(extra / 2 for _ in nll), tuple(index % 10 > 0 for index in range(400)))


def test_perplexity_is_the_exponential_of_the_mean() -> None:
    figures = quality(Scores((math.log(4),) * 400), None, CUT, is_exact=True)

    assert figures.perplexity.value == pytest.approx(4)
    assert figures.kl is figures.same_top is figures.perplexity_ratio is None


def test_the_ratios_interval_is_far_narrower_than_the_perplexities() -> None:
    """The text's difficulty is in both and cancels out."""
    figures = quality(scores(0.01), scores(0.0), CUT, is_exact=True)

    assert figures.perplexity_ratio is not None
    assert figures.perplexity_ratio.value == pytest.approx(math.exp(0.01))
    assert figures.perplexity_ratio.high - figures.perplexity_ratio.low < 1e-6
    assert figures.perplexity.high - figures.perplexity.low > 1
    assert figures.kl is not None
    assert (figures.kl.low, figures.kl.value, figures.kl.high) == pytest.approx((0.005,) * 3)
    assert figures.same_top is not None
    assert figures.same_top.low < 0.9 == figures.same_top.value < figures.same_top.high


def distribution(chance: random.Random, size: int = 50) -> list[float]:
    weights = [chance.expovariate(1) ** 3 for _ in range(size)]
    return [math.log(weight / sum(weights)) for weight in weights]


def likeliest(logs: list[float], count: int) -> list[tuple[int, float]]:
    return sorted(enumerate(logs), key=lambda pair: -pair[1])[:count]


@pytest.mark.parametrize("count", [1, 5, 20, 50])
def test_what_the_likeliest_tokens_tell_is_never_above_the_truth(count: int) -> None:
    chance = random.Random(count)
    for _ in range(100):
        reference, own = distribution(chance), distribution(chance)
        target = chance.randrange(50)
        divergence = math.fsum(math.exp(p) * (p - q) for p, q in zip(reference, own, strict=True))

        told = bounds(target, likeliest(own, count), likeliest(reference, count))

        assert told.nll <= -own[target] + 1e-9
        assert told.kl <= divergence + 1e-9
        assert told.is_same == (own.index(max(own)) == reference.index(max(reference)))
        if count == 50:
            assert told.is_seen
            assert told.nll == pytest.approx(-own[target])
            assert told.kl == pytest.approx(divergence)


def test_a_reference_diverges_from_nobody() -> None:
    told = bounds(3, [(3, -0.5), (1, -1.5)], None)

    assert (told.nll, told.kl, told.is_seen, told.is_same) == (0.5, 0.0, True, True)


def test_a_token_beyond_the_list_is_at_most_as_likely_as_what_is_left() -> None:
    told = bounds(9, [(3, math.log(0.9)), (1, math.log(0.08))], None)

    assert not told.is_seen
    assert told.nll == pytest.approx(-math.log(0.02))


def row(name: str, size: int, ratio: float, high: float | None = None, *, is_exact: bool = True) -> Row:
    estimate = Estimate(ratio, 2 * ratio - (high or ratio), high or ratio)
    return Row(name, f"{name}.gguf", size, 8.0, SPEED, Quality(is_exact, Estimate(10, 9, 11), 1.0, estimate))


BF16 = row("bf16", 270, 1.0)
ROWS = [row("q8_0", 140, 1.001), row("q5_k_m", 110, 1.019, 1.031), row("q4_k_m", 100, 1.08)]


@pytest.mark.parametrize(("within", "name"), [(0.1, "q4_k_m"), (0.02, "q5_k_m"), (0.01, "q8_0"), (0.0, None)])
def test_the_smallest_within_the_limit_is_recommended(within: float, name: str | None) -> None:
    recommendation = recommend(ROWS, BF16, within)

    assert recommendation.name == name
    assert f"Serve {name or 'bf16'}:" in recommendation.text


def test_what_the_text_leaves_open_is_said() -> None:
    assert "may be +3.10 %" in recommend(ROWS, BF16, 0.02).text
    assert "may be" not in recommend(ROWS, BF16, 0.01).text


def test_the_nearest_is_named_where_none_is_good_enough() -> None:
    assert recommend(ROWS, BF16, 0.0).text.endswith("the nearest is q8_0 with +0.10 %.")
    assert recommend([], BF16, 0.0).text == "Serve bf16: no smaller file is within 0 % of its perplexity."


def test_approximate_figures_are_called_so() -> None:
    assert "approximate" in recommend([row("q8_0", 1, 1.0, is_exact=False)], BF16, 0.02).text


def test_a_file_that_predicts_better_than_the_first_is_within_every_limit() -> None:
    assert recommend([row("q8_0", 1, 0.99)], BF16, 0.0).name == "q8_0"


def test_a_file_that_is_larger_is_never_recommended() -> None:
    assert recommend([row("q8_0", 300, 1.0)], BF16, 0.02).name is None
