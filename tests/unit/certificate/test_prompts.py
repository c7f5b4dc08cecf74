"""Prompts against those of the training: what is the same, and each fault by its name."""

from __future__ import annotations

import msgspec
import pytest

from app.certificate.certificate import Fault, Finding
from app.certificate.observation import Observation, SeenFile, SeenPrompt
from app.certificate.prompts import Trained, compared, difference, family

SYSTEM = "Be brief."
CHATS = {
    "one turn": [{"role": "user", "content": "Hi"}],
    "system": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Hi"}],
}
CHATML = {
    "one turn": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "system": f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
}
WORDS = {"one turn": "Human: Hi\nAssistant:", "system": f"{SYSTEM}\nHuman: Hi\nAssistant:"}
LLAMA = {name: text.replace("<|im_start|>", "<|start_header_id|>") for name, text in CHATML.items()}


def tokens(text: str) -> tuple[int, ...]:
    return tuple(text.encode())


def observation(texts: dict[str, str], expected: dict[str, str], file: SeenFile = SeenFile()) -> Observation:  # noqa: B008
    prompts = {name: SeenPrompt(text, tokens(text), tokens(expected[name])) for name, text in texts.items()}
    return Observation("m", "b", "llama_cpp", "the embedded engine", prompts=prompts, file=file)


def trained(rendered: dict[str, str], own: dict[str, str] | None = None, name: str = "qwen") -> Trained:
    own = own or rendered
    return Trained(rendered, own, name, CHATS, own_differs=own != rendered)


def test_prompts_of_the_training_are_the_same() -> None:
    lines = compared(observation(CHATML, CHATML), trained(CHATML))

    assert [(line.key, line.verdict) for line in lines] == [("prompt", Finding.SAME), ("own template", Finding.SAME)]


def test_the_trainings_template_in_place_of_the_tokenizers_is_the_same() -> None:
    lines = compared(observation(WORDS, WORDS), trained(WORDS, CHATML, "default"))

    assert [line.verdict for line in lines] == [Finding.SAME, Finding.SAME]
    assert lines[1].how.startswith("trained on default, and that is served")


FAULTS = {
    "dropped": (CHATML | {"one turn": "Hi"}, SeenFile(has_template=False), CHATML, Fault.NO_TEMPLATE),
    "another family": (LLAMA, SeenFile(), CHATML, Fault.OTHER_FAMILY),
    "not the trained": (CHATML, SeenFile(), WORDS, Fault.NOT_TRAINED),
    "system lost": ({**CHATML, "system": CHATML["one turn"]}, SeenFile(), CHATML, Fault.SYSTEM_LOST),
    "something else": ({**CHATML, "one turn": CHATML["one turn"] + " "}, SeenFile(), CHATML, Fault.OTHER_PROMPT),
    "BOS twice": (
        {name: "<s><s>" + text for name, text in CHATML.items()},
        SeenFile(bos_text="<s>"),
        {name: "<s>" + text for name, text in CHATML.items()},
        Fault.BOS_DOUBLED,
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_each_fault_is_named(case: str) -> None:
    served, file, rendered, fault = FAULTS[case]

    lines = compared(observation(served, rendered, file), trained(rendered, CHATML if rendered is WORDS else None))

    assert lines[0].verdict is Finding.DIFFERS
    assert fault in lines[0].faults
    assert str(fault) in lines[0].how


def test_a_default_system_prompt_that_is_lost_is_named() -> None:
    rendered = {"one turn": "<|im_start|>system\nYou are Qwen.<|im_end|>\n" + CHATML["one turn"]}
    served = {"one turn": CHATML["one turn"]}
    reference = Trained(rendered, rendered, "qwen", CHATS, default_system="You are Qwen.")

    [line, *_] = compared(observation(served, rendered), reference)

    assert line.faults == (Fault.SYSTEM_LOST,)


def test_a_second_token_that_begins_a_text_is_seen_where_the_text_is_the_same() -> None:
    text = CHATML["one turn"]
    seen = SeenPrompt(text, (1, 1, 5, 6), (1, 5, 6))
    served = Observation("m", "b", "k", "t", prompts={"one turn": seen}, file=SeenFile(bos=1))

    [line, *_] = compared(served, trained({"one turn": text}))

    assert line.faults == (Fault.BOS_DOUBLED,)
    assert "other tokens" in line.how


def test_a_text_alone_is_enough_where_no_tokens_are_told() -> None:
    told = {name: SeenPrompt(text) for name, text in CHATML.items()}
    served = Observation("m", "b", "ollama", "Ollama", prompts=told)

    assert compared(served, trained(CHATML))[0].verdict is Finding.SAME
    assert compared(served, trained(LLAMA))[0].faults == (Fault.OTHER_FAMILY,)


def test_what_the_engine_does_not_tell_is_not_checkable() -> None:
    refused = {"one turn": SeenPrompt(refused="The engine does not tell.")}
    served = Observation("m", "b", "remote", "the engine", prompts=refused)

    [line] = compared(served, trained(CHATML))

    assert (line.verdict, line.how) == (Finding.UNCHECKED, "The engine does not tell.")


def test_a_daemon_that_does_not_tell_its_prompts_is_not_accused_for_the_template_in_its_modelfile() -> None:
    """A newer one renders the template of the GGUF file, of which it shows nothing; a file of ours is known."""
    refused = {"one turn": SeenPrompt(refused="This Ollama daemon does not tell the prompt that it makes of a chat.")}
    served = Observation("m", "b", "ollama", "Ollama", prompts=refused, file=SeenFile(has_template=False))
    own = msgspec.structs.replace(served, file=SeenFile(path="/m.gguf", has_template=False))

    assert [compared(each, trained(CHATML))[0].verdict for each in (served, own)] == [
        Finding.UNCHECKED,
        Finding.DIFFERS,
    ]


def test_an_engine_that_refuses_chats_for_want_of_a_template_is_named() -> None:
    words = "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template"
    served = Observation("m", "b", "vllm", "vLLM", prompts={"one turn": SeenPrompt(refused=words)})

    [line] = compared(served, trained(CHATML))

    assert line.faults == (Fault.NO_TEMPLATE,)


def test_a_difference_says_where_it_begins_and_what_stands_there() -> None:
    assert difference("abcdef", "abXdef") == "from letter 2 on: 'abXdef' in place of 'abcdef'"
    assert difference("abc", "abcd").startswith("from letter 3 on")


def test_a_family_is_known_by_how_it_marks_who_speaks() -> None:
    assert family(CHATML["one turn"]) == "ChatML"
    assert family("[INST] Hi [/INST]") == "Mistral"
    assert family("Hi") is None
