"""A child process: negative log probabilities of windows of tokens, by transformers in float32.

Run by path with the Python of the tool environment "convert". Request: `folder` (Hugging Face layout), `text` and
`windows`: lists `[tokens, first]`. Result: `tokens` of the text by the folder's own tokenizer, and `nll`.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Answer the one request on standard input."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    request = json.load(sys.stdin)
    tokenizer = AutoTokenizer.from_pretrained(request["folder"])
    model = AutoModelForCausalLM.from_pretrained(request["folder"], dtype=torch.float32).eval()
    nll: list[float] = []
    with torch.inference_mode():
        for tokens, first in request["windows"]:
            logits = model(torch.tensor([tokens])).logits[0, first - 1 : -1].double()
            logs = torch.log_softmax(logits, dim=-1)
            nll += (-logs[torch.arange(len(logs)), torch.tensor(tokens[first:])]).tolist()
    print(json.dumps({"result": {"tokens": tokenizer(request["text"])["input_ids"], "nll": nll}}))


if __name__ == "__main__":
    main()
