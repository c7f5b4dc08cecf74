"""A certificate as a whole: what is asked, what is said of it, and how it is written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from app.certificate import certify, report
from app.certificate.certificate import Certificate, Fault, Finding, Line
from app.certificate.expectation import expectation, folder_digest, folder_of, named_sampling
from app.certificate.observation import Observation, SeenAnswer, SeenFile, SeenPrompt, SeenStop, SeenToken
from app.certificate.serving import Expectation
from app.reference.chats import CHATS, Chat
from app.reference.reference import Reference

PROMPT = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
ONE = {"one turn": Chat(({"role": "user", "content": "Hi"},))}
QWEN = Reference(
    source="llamafactory",
    template="qwen",
    reason="--template qwen",
    rendered={"one turn": PROMPT},
    own={"one turn": PROMPT},
    own_differs=False,
    stops=("<|im_end|>",),
    default_system=None,
    chat_template=None,
)


class Served:
    """A gateway whose every answer is that of a good serving; keeps what it was asked."""

    def __init__(self, prompt: str = PROMPT, *, hashed_at: int = 0) -> None:
        self.hashed_at = hashed_at
        self.asked: list[tuple[str, Any]] = []
        self.prompt = prompt

    def __call__(self, method: str, path: str, body: Any) -> Any:
        self.asked.append((f"{method} {path}", body))
        if path.endswith("/certificate"):
            return {}
        return msgspec.to_builtins(
            Observation(
                "law/1",
                "law",
                "vllm",
                "vLLM",
                serving="aa" if len(self.asked) > self.hashed_at else None,
                identity="i",
                prompts={name: SeenPrompt(self.prompt) for name in body.get("prompts", ())},
                stops={text: SeenStop(True) for text in body.get("stops", ())},
                answers={name: SeenAnswer("Hi", (SeenToken("Hi", -0.1),), "stop") for name in body.get("answers", ())},
                file=SeenFile("/m", "a" * 64) if body.get("hashes") else SeenFile(),
            )
        )


def test_a_good_serving_is_verified_and_the_gateway_keeps_that() -> None:
    gateway = Served()
    told: list[str] = []

    made = certify.certify("law/1", QWEN, gateway, chats=ONE, report=told.append, date="2026-11-27")

    assert made.summary == "verified 2026-11-27 (trained template qwen)"
    assert {line.key: line.verdict for line in made.lines} == {
        "prompt": Finding.SAME,
        "own template": Finding.SAME,
        "answers": Finding.UNCHECKED,
        "stops": Finding.SAME,
        "context": Finding.UNCHECKED,
        "sampling": Finding.UNCHECKED,
        "files": Finding.UNCHECKED,
    }
    assert [path for path, _ in gateway.asked[:-1]] == ["POST /admin/models/law%2F1/observe"] * 6
    assert gateway.asked[-1] == ("POST /admin/models/law%2F1/certificate", msgspec.to_builtins(made))
    assert told[0] == "law/1: the prompts that it builds …"


def test_what_differs_fails_and_is_named_by_its_line() -> None:
    expected = Expectation(sha256="b" * 64)

    made = certify.certify("law/1", QWEN, Served(PROMPT + " "), expected=expected, chats=ONE, date="2026-11-27")

    assert made.failed
    assert made.summary == "failed: prompt, files"
    assert made.faults == (Fault.OTHER_PROMPT, Fault.WRONG_FILE)


def test_two_servings_are_compared_without_a_reference() -> None:
    seen = certify.observe("law/1", None, Served(), chats=CHATS)
    other = certify.observe("law/2", None, Served(PROMPT + " "), chats=CHATS)

    same = certify.judge(seen, None, against=seen, date="2026-11-27")
    differs = certify.judge(seen, None, against=other, date="2026-11-27")

    assert same.lines[0].verdict is Finding.SAME
    assert differs.lines[0].verdict is Finding.DIFFERS
    assert [line.key for line in same.lines][:3] == ["same prompts", "answers", "numbers"]


def test_nothing_that_could_be_checked_is_not_verified() -> None:
    line = Line("prompt", "prompts", Finding.UNCHECKED, "why")

    assert Certificate("m", "2026-11-27", "r", (line,)).summary == "unverified (nothing could be checked)"


def test_without_the_prompts_of_the_training_nothing_is_verified() -> None:
    seen = certify.observe("law/1", None, Served(), chats=CHATS)

    made = certify.judge(seen, None, date="2026-11-27")
    compared = certify.judge(seen, None, against=seen, date="2026-11-27")

    stops = Line("stops", "where answers end", Finding.SAME, "how")
    assert msgspec.structs.replace(made, lines=(stops,)).summary == "partly verified 2026-11-27 (prompts not checked)"
    assert compared.summary == "partly verified 2026-11-27 (prompts not checked)"
    assert made.reference == "nothing: what it was trained on is not known"


def test_the_outcome_says_which_folder_somebody_named() -> None:
    seen = certify.observe("law/1", QWEN, Served(), chats=ONE)
    wrong = certify.observe("law/1", QWEN, Served(PROMPT + " "), chats=ONE)

    good, bad = (
        certify.judge(each, QWEN, chats=ONE, held_against="tuned", date="2026-11-27") for each in (seen, wrong)
    )

    assert good.summary == "verified 2026-11-27 (trained template qwen, held against folder tuned)"
    assert bad.summary == "failed: prompt (held against folder tuned)"


def test_the_digest_of_what_is_served_is_waited_for_but_not_for_long() -> None:
    pauses: list[float] = []
    late, never = (
        certify.observe("law/1", QWEN, Served(hashed_at=at), chats=ONE, pause=pauses.append) for at in (7, 99)
    )

    assert (late.serving, never.serving) == ("aa", None)
    assert pauses == [0.5] * (2 + 10)
    assert "its files have not been read yet" in report.as_markdown(certify.judge(never, QWEN, chats=ONE, date="d"))


def test_it_is_written_as_markdown_and_json_that_say_all_of_it() -> None:
    line = Line("prompt", "prompts", Finding.DIFFERS, "a|b <tag>\nsecond", (Fault.OTHER_PROMPT,), {"chats": 1})
    made = Certificate("law", "2026-11-27", "what it was\nheld against", (line,), backend="b", kind="vllm")

    text, value = report.as_markdown(made), json.loads(report.as_json(made))

    assert "| prompts | differs | a\\|b &lt;tag> second |" in text
    assert text.startswith("# Certificate: law: failed: prompt\n")
    assert (value["failed"], value["lines"][0]["faults"]) == (True, ["the prompt differs"])
    assert report.rows(made) == [("prompts", "differs", line.how)]


def test_a_folder_says_what_is_expected_of_its_serving(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.6, "top_k": 20, "do_sample": true}')
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    digest = folder_digest(tmp_path)

    of_folder = expectation(tmp_path, SeenFile(str(tmp_path / "model.safetensors")), 2048)
    of_gguf = expectation(tmp_path, SeenFile(str(tmp_path / "m.gguf")))

    assert (of_folder.sha256, of_folder.source, of_folder.context_length) == (digest, None, 2048)
    assert (of_gguf.sha256, of_gguf.source) == (None, None)  # it holds no model
    assert of_gguf.sampling == {"temperature": 0.6, "top_k": 20.0}
    assert folder_of(SeenFile(str(tmp_path / "m.gguf"))) == tmp_path
    assert folder_of(SeenFile()) is None
    assert named_sampling(tmp_path / "nowhere") == {}


def test_the_digest_of_several_files_depends_on_each(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"one")
    (tmp_path / "b.safetensors").write_bytes(b"two")
    before = folder_digest(tmp_path)

    (tmp_path / "b.safetensors").write_bytes(b"tow")

    assert before != folder_digest(tmp_path)
    assert folder_digest(tmp_path / "nowhere") is None
