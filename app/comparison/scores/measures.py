"""What is measured of an answer: names, units, and which direction is better. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure. `unit`: what its figures count in ("" for shares from 0 to 1). `better`: which direction is an
    improvement; None where neither is by itself. `is_right_or_wrong`: its only figures are 0 and 1. `text`, `chinese`:
    what it tells, one sentence.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"] | None
    is_right_or_wrong: bool
    text: str
    chinese: str


_LIST: Final = (
    Measure(
        "exact",
        "",
        "higher",
        True,
        "The answer is the reference answer, but for case, spaces and punctuation.",
        "回答与参考答案一致（忽略大小写、空格和标点）。",
    ),
    Measure("contains", "", "higher", True, "The reference answer occurs in the answer.", "回答中包含参考答案。"),
    Measure(
        "choice",
        "",
        "higher",
        True,
        "The right option or options were chosen, or true and false told apart rightly.",
        "选择题或判断题答对。",
    ),
    Measure(
        "chrf",
        "points",
        "higher",
        False,
        "chrF: how much of the reference's character sequences the answer shares, from 0 to 100.",
        "chrF：与参考答案的字符片段重合度，0 到 100。",
    ),
    Measure(
        "rouge_l",
        "",
        "higher",
        False,
        "ROUGE-L: the longest common sequence with the reference, by word, Chinese by character.",
        "ROUGE-L：与参考答案的最长公共子序列（英文按词，中文按字）。",
    ),
    Measure(
        "logprob",
        "nats per token",
        "higher",
        False,
        "The log-probability of the reference answer under the model, per token.",
        "参考答案在模型下的平均每词元对数概率。",
    ),
    Measure(
        "length", "characters", None, False, "How long the answer is, thinking left out.", "回答长度（不含思考过程）。"
    ),
    Measure("refusal", "", None, True, "The model declined to answer.", "模型拒绝回答。"),
    Measure(
        "repetition",
        "",
        "lower",
        False,
        "The share of the answer that repeats what it has said before.",
        "回答中重复前文的比例。",
    ),
    Measure(
        "seconds",
        "seconds",
        None,
        False,
        "How long the answer took, from the request to its end.",
        "从请求到回答结束的时间。",
    ),
)

MEASURES: Final[Mapping[str, Measure]] = MappingProxyType({measure.name: measure for measure in _LIST})
