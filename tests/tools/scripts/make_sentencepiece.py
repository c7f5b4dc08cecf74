"""Makes the folder of a small random llama with a SentencePiece tokenizer that puts BOS before each text. Runs in the
tool environment "convert".

Request: `folder`, `texts` (that the tokenizer learns from), `chat_template`. Result: null.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import sentencepiece
import torch
from transformers import LlamaConfig, LlamaForCausalLM

WORDS = 640


def main() -> None:
    request = json.load(sys.stdin)
    folder = Path(request["folder"])
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(request["texts"]),
        model_writer=written,
        vocab_size=WORDS,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    words = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue()).get_piece_size()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(written.getvalue())
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokens, "add_bos_token": True}))
    (folder / "chat_template.jinja").write_text(request["chat_template"])
    print(json.dumps({"result": None}), flush=True)


if __name__ == "__main__":
    main()
