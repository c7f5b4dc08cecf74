"""What could make models unlike, as it was seen before a run."""

from __future__ import annotations

import msgspec
import pytest

from app.comparison.running.compare_run import judged_by_one_of_them
from app.comparison.running.controls import controls, drifted, refusals, servings_of, share_an_engine, twins
from app.comparison.running.run_record import DrawnWith, SeenModel
from tests.unit.comparison.running.runs import order, questions

BASE = SeenModel(
    name="base",
    kind="vllm",
    version="0.32.0",
    quantization="bf16",
    context_length=4096,
    parity="verified 2026-11-27",
    servings=("aaaa",),
    prompt="p1",
)
TUNED = msgspec.structs.replace(BASE, name="tuned", servings=("bbbb",))
BOTH = [BASE, TUNED]


def states(*models: SeenModel) -> dict[str, str]:
    return {each.what: each.state for each in controls(models, DrawnWith())}


def test_equals_but_for_their_weights_are_the_same_in_every_line() -> None:
    assert set(states(BASE, TUNED).values()) == {"same"}
    assert list(states(BASE, TUNED)) == [
        *("certificate", "prompt", "context", "engine", "quantization", "sampling", "serving")
    ]


@pytest.mark.parametrize(
    ("what", "changes", "state"),
    [
        ("certificate", {"parity": "failed: stops"}, "different"),
        ("certificate", {"parity": "partly verified 2026-11-27"}, "unknown"),
        ("certificate", {"parity": None}, "unknown"),
        ("prompt", {"prompt": "p2"}, "different"),
        ("prompt", {"prompt": None}, "unknown"),
        ("context", {"context_length": 2048}, "different"),
        ("context", {"context_length": None}, "unknown"),
        ("engine", {"version": "0.33.0"}, "different"),
        ("quantization", {"quantization": "Q4_K_M"}, "different"),
        ("quantization", {"quantization": None}, "unknown"),
        ("sampling", {"only_openai": True}, "unknown"),
        ("serving", {"servings": ()}, "unknown"),
    ],
)
def test_what_is_unlike_or_not_known_is_said(what: str, changes: dict[str, object], state: str) -> None:
    told = states(BASE, msgspec.structs.replace(TUNED, **changes))

    assert told[what] == state
    assert {each for name, each in told.items() if name != what} == {"same"}


def test_a_failed_certificate_and_engines_that_are_not_the_same_are_refused() -> None:
    failed = msgspec.structs.replace(TUNED, parity="failed: stops", servings=("bbbb", "cccc"))

    certificate, engines = refusals([BASE, failed])

    assert certificate.startswith("'tuned' is not served as it was trained: its certificate says 'failed: stops'")
    assert engines.startswith("'tuned' is served by engines that are not the same (servings bbbb, cccc)")
    assert refusals(BOTH) == []
    assert refusals([BASE, failed], "because") == ["because", engines]


def test_a_run_goes_on_only_with_what_it_began_with() -> None:
    changed = msgspec.structs.replace(TUNED, servings=("dddd",))

    assert drifted(BOTH, BOTH) is None
    assert drifted(BOTH, [BASE, msgspec.structs.replace(TUNED, servings=())]) is None
    assert drifted(BOTH, [BASE, changed]) == (
        "what 'tuned' answers with has changed since the comparison began (serving bbbb, now dddd)"
    )


def test_models_of_the_same_bytes_are_named() -> None:
    assert twins(BOTH) == []
    assert twins([BASE, msgspec.structs.replace(TUNED, servings=("aaaa",))]) == [
        "'base' and 'tuned' answer with the same bytes (serving aaaa): what is different between them is chance."
    ]


def test_a_model_and_its_adapter_share_an_engine() -> None:
    assert share_an_engine([msgspec.structs.replace(each, backend="gpu") for each in BOTH])
    assert not share_an_engine([BASE, msgspec.structs.replace(TUNED, backend="other")])


def test_servings_are_those_that_are_known() -> None:
    entry = {"servings": [{"digest": "b"}, {"digest": "a"}, {"digest": None}, {"digest": "b"}]}

    assert servings_of(entry) == ("a", "b")
    assert servings_of({}) == ()


def test_a_judge_that_is_compared_itself_is_told_and_another_is_not() -> None:
    of = order(questions(1))

    assert judged_by_one_of_them(of) == ()
    assert judged_by_one_of_them(msgspec.structs.replace(of, judge="other")) == ()
    (told,) = judged_by_one_of_them(msgspec.structs.replace(of, judge="tuned"))
    assert told.startswith("The judge tuned is one of the compared models")
