"""Go templates for daemons that cannot render a GGUF file's own template; each is held against the reference. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.reference.chats import CHATS
from app.registration.go_template import GoTemplate
from app.registration.journal import RegistrationError

# How the roles of a family are written. What a system prompt is written as is in `range`, as the daemon has it there.
FAMILIES: Final[Mapping[str, str]] = {
    "ChatML": (
        "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
    ),
    "Llama 3": (
        "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end }}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "Phi 3": "{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n",
    "Zephyr": "{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}</s>\n{{ end }}<|assistant|>\n",
    "Gemma": (
        '{{- $said := "" }}{{- range .Messages }}{{ if eq .Role "system" }}{{ $said = .Content }}'
        '{{ else if eq .Role "user" }}<start_of_turn>user\n{{ if $said }}{{ $said }}\n\n{{ $said = "" }}{{ end }}'
        "{{ .Content }}<end_of_turn>\n{{ else }}<start_of_turn>model\n{{ .Content }}<end_of_turn>\n{{ end }}{{ end }}"
        "<start_of_turn>model\n"
    ),
    "default": (
        '{{- range .Messages }}{{ if eq .Role "system" }}System: {{ .Content }}EOS\n{{ else if eq .Role "user" }}'
        "Human: {{ .Content }}EOS\nAssistant:{{ else }}{{ .Content }}EOS\n{{ end }}{{ end }}"
    ),
    "Vicuna": (
        '{{- range .Messages }}{{ if eq .Role "system" }}{{ .Content }} {{ else if eq .Role "user" }}'
        "USER: {{ .Content }} ASSISTANT:{{ else }}{{ .Content }}EOS{{ end }}{{ end }}"
    ),
    "Alpaca": (
        '{{- range .Messages }}{{ if eq .Role "system" }}{{ .Content }}\n\n{{ else if eq .Role "user" }}'
        "### Instruction:\n{{ .Content }}\n\n### Response:\n{{ else }}{{ .Content }}EOS\n\n{{ end }}{{ end }}"
    ),
    "Mistral": (
        '{{- $said := "" }}{{- range .Messages }}{{ if eq .Role "system" }}{{ $said = .Content }}'
        '{{ else if eq .Role "user" }}[INST] {{ if $said }}{{ $said }}\n\n{{ $said = "" }}{{ end }}{{ .Content }}'
        " [/INST]{{ else }} {{ .Content }}EOS{{ end }}{{ end }}"
    ),
}
_ENDS: Final = ("<|im_end|>", "<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|eot_id|>", "")


def plain_chats() -> dict[str, list[dict[str, Any]]]:
    """The chats of nothing but texts: what tools and thinking become is each daemon's own affair."""
    return {
        name: [{"role": each["role"], "content": each["content"]} for each in chat.messages]
        for name, chat in CHATS.items()
        if not chat.tools and all(_is_plain(each) for each in chat.messages)
    }


def _is_plain(message: Mapping[str, Any]) -> bool:
    return set(message) == {"role", "content"} and isinstance(message["content"], str) and message["role"] != "tool"


def differences(
    source: str, rendered: Mapping[str, str], *, bos: str | None = None, system: str | None = None
) -> dict[str, tuple[str, str]]:
    """The chats that a Go template says otherwise than `rendered` does: (as it was trained, as it is said), by name.

    `bos`: the text of the first token, which the daemon puts there itself; `system`: the Modelfile's SYSTEM, which
    stands in front of a chat without one. NotRendered where the template has pieces that are not known here.
    """
    template, unlike = GoTemplate(source), {}
    for name, messages in plain_chats().items():
        if name not in rendered:
            continue
        own = [{"role": "system", "content": system}] if system and messages[0]["role"] != "system" else []
        wanted = rendered[name].removeprefix(bos or "")
        said = template.chat([*own, *messages]).removeprefix(bos or "")
        if said != wanted:
            unlike[name] = (wanted, said)
    return unlike


def family_for(
    rendered: Mapping[str, str], version: str, *, bos: str | None = None, system: str | None = None
) -> tuple[str, str | None]:
    """The Go template that says every plain chat as `rendered`, and the system prompt that has to stand in front of
    chats without one; RegistrationError where no known template does.
    """
    for source in FAMILIES.values():
        for end in _ENDS if "EOS" in source else ("",):
            candidate = source.replace("EOS", end)
            for own in dict.fromkeys((system, _said_first(candidate, rendered, bos))):
                if not differences(candidate, rendered, bos=bos, system=own):
                    return candidate, own
    raise RegistrationError(
        f"the daemon's version is {version}: it cannot render the model's own template, as 0.33.0 and newer do, and no "
        f"Go template that is known here ({', '.join(FAMILIES)}) says the same: update the daemon"
    )


def _said_first(source: str, rendered: Mapping[str, str], bos: str | None) -> str | None:
    """The system prompt that a chat without one begins with, where the template would say it like that."""
    mark = "\ue000"
    chat = [{"role": "system", "content": mark}, *plain_chats()["one turn"]]
    before, _, after = GoTemplate(source).chat(chat).removeprefix(bos or "").partition(mark)
    whole = rendered.get("one turn", "").removeprefix(bos or "")
    if before and after and whole.startswith(before) and whole.endswith(after):
        return whole[len(before) : len(whole) - len(after)]
    return None
