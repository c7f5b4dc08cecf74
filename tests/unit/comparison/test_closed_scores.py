"""Which option a model chose, whether it said true or false: out of what models really write."""

from __future__ import annotations

import pytest

from app.comparison.closed_answers import bare_options, only_letters, truth
from app.comparison.scores.closed import chosen, judged

RIVERS = ("Ulm", "Danube", "Zugspitze", "Black Forest")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", "B"),
        (" b. ", "B"),
        ("**B**", "B"),
        ("(B)", "B"),
        ("B\n\nThe Danube is a river.", "B"),
        ("B. Danube", "B"),
        ("B) Danube", "B"),
        ("(B) Danube", "B"),
        ("**B. Danube**", "B"),
        ("B：多瑙河", "B"),
        ("The answer is B.", "B"),
        ("The correct answer is (B) Danube.", "B"),
        ("The correct option is B: Danube", "B"),
        ("Answer: B", "B"),
        ("**Answer:** B", "B"),
        ("Let me think. A is a town. The answer is B.", "B"),
        ("It could be A. The answer is A? No: the answer is B.", "B"),
        ("答案：B", "B"),
        ("答案是B。", "B"),
        ("正确答案为 B", "B"),
        ("本题选B", "B"),
        ("因此选 (B)。", "B"),
        (r"So it is $\boxed{B}$.", "B"),
        (r"\boxed{\text{B}}", "B"),
        ("Option B is correct, as the Danube flows.", "B"),
        ("Danube", "B"),
        ("It is the Danube.", "B"),
        ("I think B fits best, as it flows.", "B"),
        ("<think>A? No, B? The answer is C.</think>\nB", "B"),
        ("Ｂ", "B"),
        ("A river is water, and the Danube is one.", "B"),
        ("I would say it is the Danube.", "B"),
        ("A. Ulm\nB. Danube\nC. Zugspitze\nD. Black Forest\n\nAnswer: B", "B"),
        ("A. Ulm\nB. Danube\nC. Zugspitze\nD. Black Forest\n\nB", "B"),
        ("你可以选择B. 多瑙河。", "B"),
        ("只回答正确的选项是“B”。", "B"),
        ("", None),
        ("The answer is a river.", None),
        ("A. Ulm\nB. Danube\nC. Zug", None),
        ("A. Ulm\nB. Danube\nC. Zugspitze\nD. Black Forest\n\nA. Ulm\nB", None),
        ("I do not know.", None),
        ("A. Ulm\nB. Danube\nC. Zugspitze\nD. Black Forest", None),
        ("Either A or B.", None),
        ("E", None),
        ("<think>B, surely", None),
        ("It is Ulm or the Danube.", None),
    ],
)
def test_the_option_that_an_answer_chooses(text: str, expected: str | None) -> None:
    assert chosen(text, RIVERS) == expected


def test_the_end_of_an_answer_that_was_cut_off_says_nothing() -> None:
    text = "A. Ulm\nB. Danube\nC. Zugspitze\nD. Black Forest\n\nC"

    assert chosen(text, RIVERS) == "C"
    assert chosen(text, RIVERS, is_cut=True) is None
    assert chosen("B\n\nThe Danube", RIVERS, is_cut=True) == "B"


def test_naming_two_options_is_not_choosing_one_of_them() -> None:
    assert chosen("A, B", RIVERS) == "AB"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AC", "AC"),
        ("A, C", "AC"),
        ("C、A", "AC"),
        ("A和C", "AC"),
        ("A and C", "AC"),
        ('["A", "C"]', "AC"),
        ("答案：AC", "AC"),
        ("答案：A、C", "AC"),
        ("The answers are A and C.", "AC"),
        ("A. AES\nC. SM4", "AC"),
        ("- A. AES\n- C. SM4", "AC"),
        ("AES and SM4", "AC"),
        ("AES 和 SM4 是对称加密算法。", "AC"),
        ("A", "A"),
        ("ABCD", "ABCD"),
    ],
)
def test_several_right_options(text: str, expected: str) -> None:
    assert chosen(text, ("AES", "RSA", "SM4", "ECC"), several=True) == expected


def test_of_options_within_each_other_the_longest_counts() -> None:
    assert chosen("传输控制协议", ("传输", "传输控制协议", "控制")) == "B"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("True.", True),
        ("**False**", False),
        ("正确", True),
        ("正确。因为长江很长。", True),
        ("错误", False),
        ("对", True),
        ("不对", False),
        ("不正确。", False),
        ("✅", True),
        ("❌", False),
        ("✔️", True),
        ("The statement is true.", True),
        ("The statement is not true.", False),
        ("This statement is incorrect.", False),
        ("This isn't correct.", False),
        ("这个说法是错误的。", False),
        ("该说法不正确。", False),
        ("该说法是正确的。", True),
        ("Yes, it is.", True),
        ("No. Port 22 is SSH's.", False),
        ("True, although many think it is false.", True),
        ("Some say it is true.\nfalse", False),
        ("It sounds right. Therefore the answer is false.", False),
        ("它看起来正确，但是，答案是错误。", False),
        ("It is not wrong.", True),
        ("这句话没有错误", True),
        ("<think>false?</think>true", True),
        ("The river is long.", None),
        ("", None),
        ("<think>true", None),
        ("True and false are values.\nBoth true and false occur.", True),
        ("It may be true or it may be false.", None),
    ],
)
def test_whether_an_answer_says_true_or_false(text: str, expected: bool | None) -> None:
    assert judged(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("✅", True), ("❌", False), (" TRUE ", True), ("0", False), ("是", True), ("perhaps", None), ("", None)],
)
def test_what_counts_as_true(text: str, expected: bool | None) -> None:
    assert truth(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", "B"),
        ("CA", "AC"),
        ("A,A", "A"),
        ('["A","C"]', "AC"),
        ("a, c", "AC"),
        ("E", None),
        ("cab", None),
        ("A river", None),
        ("", None),
        ("[1]", None),
    ],
)
def test_a_text_that_consists_of_letters(text: str, expected: str | None) -> None:
    assert only_letters(text, 4) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("A. Ulm", "B. Danube"), ("Ulm", "Danube")),
        (("A、长江", "B、黄河"), ("长江", "黄河")),
        (("(A) Ulm", "(B) Danube"), ("Ulm", "Danube")),
        (("A. Ulm", "Danube"), ("A. Ulm", "Danube")),
        (("B. Ulm", "A. Danube"), ("B. Ulm", "A. Danube")),
        (("U.S.A.", "U.K."), ("U.S.A.", "U.K.")),
        ((), ()),
    ],
)
def test_options_are_without_their_letters(options: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert bare_options(options) == expected
