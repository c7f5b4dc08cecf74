"""An example or two for each verb, at the end of its `--help`; each of them can be typed as it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import typer

EXAMPLES: Final[Mapping[str, Sequence[str]]] = {
    "serve": ("modelport serve", "modelport serve --config modelport.yaml --port 9000 --relays 2"),
    "api": ("modelport api --model_name_or_path ./qwen --template qwen", "modelport api inference.yaml --port 8001"),
    "check": ("modelport check --config modelport.yaml", "modelport check --schema > modelport.schema.json"),
    "init": ("modelport init", "modelport init --gguf models/small.gguf --config modelport.yaml"),
    "add": ("modelport add small --gguf models/small.gguf", "modelport add qwen --ollama qwen2.5:7b"),
    "keys new": (
        "modelport keys new office --team law --rpm 600 --budget '20 money per month'",
        "modelport keys new office --days 90 --config modelport.yaml",
    ),
    "keys list": ("modelport keys list", "modelport keys list --config modelport.yaml --json"),
    "keys edit": ("modelport keys edit office --rpm 100 --tpm none",),
    "keys rotate": ("modelport keys rotate office --grace 7d", "modelport keys rotate office --grace 0"),
    "keys revoke": ("modelport keys revoke office",),
    "store check": ("modelport store check",),
    "store migrate": (
        "modelport store migrate --to postgresql://modelport@db.internal/modelport",
        "modelport store migrate --from postgresql://modelport@db.internal/modelport --to sqlite",
    ),
    "plan": ("modelport plan", "modelport plan --config modelport.yaml --json"),
    "version": ("modelport version",),
    "models": ("modelport models", "modelport models --json"),
    "status": ("modelport status",),
    "usage": ("modelport usage --by key --since 7d", "modelport usage --by model --csv"),
    "audit": ("modelport audit --since 7d", "modelport audit --action keys --json"),
    "top": ("modelport top", "modelport top --once --json"),
    "logs": ("modelport logs demo --lines 50", "modelport logs demo --life -1"),
    "reload": ("modelport reload --wait",),
    "start": ("modelport start demo",),
    "stop": ("modelport stop demo",),
    "restart": ("modelport restart demo",),
    "pull": ("modelport pull qwen2.5:7b",),
    "probe": ("modelport probe security", "modelport probe --again"),
    "parity": ("modelport parity security --folder saves/security", "modelport parity security base"),
    "compare": (
        "modelport compare security --questions questions.jsonl",
        "modelport compare base security -q questions.jsonl --judge gpt-oss --out runs/first",
    ),
    "register": ("modelport register saves/security --name security --training train.yaml --vllm --embedded",),
    "unregister": ("modelport unregister security",),
    "convert": ("modelport convert saves/security --outtype q8_0 --out security.gguf",),
    "modelfile": (
        "modelport modelfile saves/security --out Modelfile",
        "modelport modelfile saves/security --check Modelfile",
    ),
    "quant-report": ("modelport quant-report saves/security --quants q4_k_m,q8_0",),
    "clean": ("modelport clean --dry-run",),
    "doctor": ("modelport doctor", "modelport doctor --json"),
    "adapters list": ("modelport adapters list base",),
    "adapters load": ("modelport adapters load base security saves/security-lora",),
    "adapters unload": ("modelport adapters unload base security",),
}


def attach(verbs: typer.Typer, words: str = "") -> None:
    """Put the examples at the end of each verb's help. `words`: what stands before these verbs, with a blank."""
    for verb in verbs.registered_commands:
        name = verb.name or (verb.callback.__name__.replace("_", "-") if verb.callback is not None else "")
        examples = EXAMPLES.get(f"{words}{name}")
        if examples:
            # A blank line is what Typer begins a new line for.
            verb.epilog = "\n\n".join([f"Example{'s' if len(examples) > 1 else ''}:", *examples])
    for group in verbs.registered_groups:
        if group.typer_instance is not None:
            attach(group.typer_instance, f"{words}{group.name} ")
