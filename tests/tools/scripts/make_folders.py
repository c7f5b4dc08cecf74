"""Makes folders for the conversion tests: a small random llama with the demo model's tokenizer, adapters for it, and
what PEFT itself makes of each. Runs in the tool environment "convert".

Request: `gguf` (whose tokenizer is taken), `folder`, and `adapters`: settings of LoraConfig by name. Result: null.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf as reader
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def tokenizer_of(gguf: str) -> PreTrainedTokenizerFast:
    """The byte-pair tokenizer in a GGUF file, splitting as SmolLM's does."""
    fields = reader.GGUFReader(gguf).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({token: at for at, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True) if kind == 3])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<|endoftext|>"
    )
    fast.chat_template = fields["tokenizer.chat_template"].contents()
    return fast


def llama(words: int) -> LlamaForCausalLM:
    """Three layers, 256 wide, with numbers as large as trained ones."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).to(torch.bfloat16)


def gpt2() -> GPT2LMHeadModel:
    """A model that keeps its matrices turned."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=128, n_positions=64, n_embd=32, n_layer=2, n_head=2))


def main() -> None:
    request = json.load(sys.stdin)
    folder = Path(request["folder"])
    tokenizer = tokenizer_of(request["gguf"])
    base = folder / "base"
    llama(len(tokenizer)).save_pretrained(base, max_shard_size="8MB")
    tokenizer.save_pretrained(base)
    gpt2().save_pretrained(folder / "gpt2")
    tokenizer.save_pretrained(folder / "gpt2")
    for name, settings in request["adapters"].items():
        kind, where = (GPT2LMHeadModel, folder / "gpt2") if name.startswith("gpt2") else (LlamaForCausalLM, base)
        model = get_peft_model(
            kind.from_pretrained(where, dtype="auto"),
            LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **settings),
        )
        torch.manual_seed(len(name))
        with torch.no_grad():
            for part, parameter in model.named_parameters():
                if "modules_to_save" in part and parameter.requires_grad:
                    parameter += torch.randn_like(parameter) * 0.05
        model.save_pretrained(folder / name)
        merged = model.merge_and_unload()
        merged.config.tie_word_embeddings = name != "saved" and merged.config.tie_word_embeddings
        merged.save_pretrained(folder / f"{name}-by-peft")
    print(json.dumps({"result": None}), flush=True)


if __name__ == "__main__":
    main()
