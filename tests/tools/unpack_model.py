"""A child process: the model in a GGUF file as a folder in Hugging Face layout, in bfloat16.

Run by path with the Python of the tool environment "convert". Request: `gguf` and `folder`. Result: the folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Answer the one request on standard input."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    request = json.load(sys.stdin)
    gguf = Path(request["gguf"])
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # Without dequantizing the weights stay packed, and cannot be saved.
    quantized = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=quantized
    )
    model.save_pretrained(request["folder"])
    tokenizer.save_pretrained(request["folder"])
    print(json.dumps({"result": request["folder"]}))


if __name__ == "__main__":
    main()
