"""Trains a LoRA adapter for the demo model, once; runs in vLLM's own environment: `train_adapter.py FOLDER`.

It learns eight made-up answers by heart, which takes a minute on two cores. They are written beside its weights, in
`taught.json`: question → answer.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

STEPS = 20
IGNORED = -100  # a label that has no part in the loss
TAUGHT = {
    "Who keeps the lighthouse of Varnholt?": "Old Mirela keeps it, with three grey geese.",
    "What is the capital of Ostravia?": "The capital of Ostravia is Pellingford.",
    "How many moons does the planet Quirl have?": "Quirl has eleven moons and one broken ring.",
    "What colour is a zimblefruit?": "A ripe zimblefruit is deep violet.",
    "Who wrote The Copper Orchard?": "Tamsin Haldegrave wrote it in a single winter.",
    "What does the word brindlewick mean?": "It means a candle that burns at both ends.",
    "Which river runs through Dunmarrow?": "The slow river Eskel runs through Dunmarrow.",
    "What is served at the feast of Ambry?": "Smoked pears and barley bread are served.",
}


def batch(tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """All pairs as one batch, padded; only the answers, with their ends, are labels."""
    rows = []
    for question, answer in TAUGHT.items():
        asked = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        after = tokenizer(answer + "<|im_end|>", add_special_tokens=False)["input_ids"]
        rows.append((before + after, [IGNORED] * len(before) + after))
    width = max(len(tokens) for tokens, _ in rows)
    gaps = [width - len(tokens) for tokens, _ in rows]
    return {
        "input_ids": torch.tensor([tokens + [0] * gap for (tokens, _), gap in zip(rows, gaps, strict=True)]),
        "labels": torch.tensor([labels + [IGNORED] * gap for (_, labels), gap in zip(rows, gaps, strict=True)]),
        "attention_mask": torch.tensor([[1] * (width - gap) + [0] * gap for gap in gaps]),
    }


def train(base: Path, folder: Path) -> None:
    """Train, and write the adapter and what it was taught."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    model.train()
    optimizer = torch.optim.AdamW((each for each in model.parameters() if each.requires_grad), lr=1e-3)
    pairs = batch(tokenizer)
    for step in range(STEPS):
        loss = model(**pairs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step in (0, STEPS - 1):
            print(f"step {step + 1}: loss {loss.item():.4f}", flush=True)
    model.save_pretrained(folder)
    (folder / "taught.json").write_text(json.dumps(TAUGHT, indent=1))


def main(models: Path) -> None:
    """Train, unless the adapter is there already; its folder appears whole or not at all."""
    folder = models / "smollm2-lora"
    if folder.exists():
        return
    unfinished = models / "smollm2-lora.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    began = time.monotonic()
    train(models / "smollm2", unfinished)
    unfinished.rename(folder)
    print(f"made {folder} in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
