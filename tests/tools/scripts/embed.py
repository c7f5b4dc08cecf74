"""The vectors that a sentence embedder was made to give: its last layer, averaged over the tokens, of length one.
Runs in the tool environment "convert".

Request: `model` (a folder) and `texts`. Result: a vector for each.
"""

from __future__ import annotations

import json
import sys

import torch
from transformers import AutoModel, AutoTokenizer


def main() -> None:
    request = json.load(sys.stdin)
    tokenizer = AutoTokenizer.from_pretrained(request["model"])
    model = AutoModel.from_pretrained(request["model"], dtype=torch.float32).eval()
    vectors = []
    with torch.inference_mode():
        for text in request["texts"]:
            tokens = tokenizer(text, return_tensors="pt")
            hidden = model(**tokens).last_hidden_state[0]
            vectors.append(torch.nn.functional.normalize(hidden.mean(dim=0), dim=0).tolist())
    print(json.dumps({"result": vectors}), flush=True)


if __name__ == "__main__":
    main()
