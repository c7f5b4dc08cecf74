"""A child process: negative log probabilities of windows of tokens of a GGUF file, by transformers in float32.

Run by path with the Python of the tool environment "convert". Request: `gguf`, a model of the family "llama" with its
embeddings tied, and `windows`: lists `[tokens, first]`. Result: `nll`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _model(path: str) -> Any:
    """The model with the file's weights, as they are after dequantising."""
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from transformers import LlamaConfig, LlamaForCausalLM

    reader = GGUFReader(path)

    def number(key: str) -> Any:
        return reader.fields[f"llama.{key}"].parts[-1][0].item()

    heads, shared = number("attention.head_count"), number("attention.head_count_kv")
    tensors = {tensor.name.removesuffix(".weight"): tensor for tensor in reader.tensors}
    config = LlamaConfig(
        vocab_size=int(tensors["token_embd"].shape[1]),
        hidden_size=number("embedding_length"),
        intermediate_size=number("feed_forward_length"),
        num_hidden_layers=number("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=shared,
        rms_norm_eps=number("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": number("rope.freq_base")},
        max_position_embeddings=number("context_length"),
        tie_word_embeddings=True,
    )
    weights = {}
    for name, tensor in tensors.items():
        *place, last = name.split(".")
        value = dequantize(tensor.data, tensor.tensor_type)
        # llama.cpp turns pairs of neighbours, transformers the two halves of a head.
        if last in ("attn_q", "attn_k"):
            count = heads if last == "attn_q" else shared
            value = value.reshape(count, value.shape[0] // count // 2, 2, -1).swapaxes(1, 2).reshape(value.shape)
        prefix = f"model.layers.{place[1]}." if place else ""
        weights[f"{prefix}{_NAMES[last]}.weight"] = torch.from_numpy(value.copy()).float()
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model = LlamaForCausalLM(config).float().eval()
    model.load_state_dict(weights)
    return model


def main() -> None:
    """Answer the one request on standard input."""
    import torch

    request = json.load(sys.stdin)
    model = _model(request["gguf"])
    nll: list[float] = []
    with torch.inference_mode():
        for tokens, first in request["windows"]:
            logits = model(torch.tensor([tokens])).logits[0, first - 1 : -1].double()
            logs = torch.log_softmax(logits, dim=-1)
            nll += (-logs[torch.arange(len(logs)), torch.tensor(tokens[first:])]).tolist()
    print(json.dumps({"result": {"nll": nll}}))


if __name__ == "__main__":
    main()
