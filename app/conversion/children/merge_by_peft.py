"""An adapter is merged into its base by PEFT itself: the whole model is loaded.

Request: `base`, `adapter` and `out` (folders), `rows` (how many rows the embeddings need; None: as the base has them),
`trust_remote_code`. Result: null. Only safetensors are read.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.conversion.children import answering
else:
    sys.path.append(str(Path(__file__).parent))
    answering = importlib.import_module("answering")


class NotMerged(Exception):
    """Why there is no result: the rest of a sentence about the adapter."""


def merge(request: Mapping[str, Any]) -> None:
    """Write the merged model's folder. Raises whatever the libraries raise, and NotMerged."""
    torch = importlib.import_module("torch")
    peft = importlib.import_module("peft")
    answering.say({"progress": {"step": "loading the base"}})
    trust = bool(request["trust_remote_code"])
    model = loader(request["base"]).from_pretrained(
        request["base"], dtype="auto", use_safetensors=True, trust_remote_code=trust, local_files_only=True
    )
    if request["rows"] is not None:
        model.resize_token_embeddings(request["rows"])
    answering.say({"progress": {"step": "merging the adapter into the base, by PEFT"}})
    adapter = peft.PeftModel.from_pretrained(model, request["adapter"])
    # It passes over what does not belong to the model, so what it read is read once more and looked at.
    loaded = peft.set_peft_model_state_dict(adapter, peft.load_peft_weights(request["adapter"]))
    if loaded.unexpected_keys:
        raise NotMerged(f"its tensor {loaded.unexpected_keys[0]} belongs to no layer of the base")
    with torch.inference_mode():
        merged = adapter.merge_and_unload(progressbar=False)
    first, last = merged.get_input_embeddings(), merged.get_output_embeddings()
    if last is not None and first.weight.shape == last.weight.shape and not torch.equal(first.weight, last.weight):
        # One of them was trained: whoever reads that both are one would lose it.
        merged.config.tie_word_embeddings = False
    out = Path(request["out"])
    answering.say({"progress": {"step": "writing the merged model"}})
    total = sum(parameter.numel() * parameter.element_size() for parameter in merged.parameters())

    def written() -> int:
        return sum(file.stat().st_size for file in out.glob("*.safetensors"))

    with answering.growth_reported(written, total):
        merged.save_pretrained(out, safe_serialization=True)


def loader(base: str) -> Any:
    """The class of transformers that this model is of, by its config.json."""
    transformers = importlib.import_module("transformers")
    architectures = json.loads((Path(base) / "config.json").read_bytes()).get("architectures") or [""]
    return getattr(transformers, architectures[0], transformers.AutoModelForCausalLM)


def sentence(exc: BaseException) -> str:
    """What went wrong, as the rest of a sentence about the adapter."""
    text = " ".join(str(exc).split())
    if isinstance(exc, NotMerged):
        return text
    if "trust_remote_code" in text or "custom code" in text:
        return "its base comes with code of its own, which is not run unless you trust it (--trust-remote-code)"
    if "size mismatch" in text:
        return f"its weights do not fit the base: {text[text.index('size mismatch') :][:300]}"
    return f"PEFT failed: {type(exc).__name__}: {text[:300]}"


if __name__ == "__main__":
    answering.answer(merge, sentence)
