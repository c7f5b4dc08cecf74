"""An adapter is merged into its base by PEFT itself: the whole model is loaded.

Request: `base`, `adapter` and `out` (folders), `rows` (how many rows the embeddings need; None: as the base has them),
`trust_remote_code`. Result: null. Only safetensors are read.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LOOK_S = 0.3


class NotMerged(Exception):
    """Why there is no result: the rest of a sentence about the adapter."""


def say(message: Mapping[str, Any]) -> None:
    """One line for whoever started this."""
    print(f"\n{json.dumps(message)}", flush=True)  # behind a question that a library may have printed


def merge(request: Mapping[str, Any]) -> None:
    """Write the merged model's folder. Raises whatever the libraries raise, and NotMerged."""
    torch = importlib.import_module("torch")
    peft = importlib.import_module("peft")
    say({"progress": {"step": "loading the base"}})
    trust = bool(request["trust_remote_code"])
    model = loader(request["base"]).from_pretrained(
        request["base"], dtype="auto", use_safetensors=True, trust_remote_code=trust, local_files_only=True
    )
    if request["rows"] is not None:
        model.resize_token_embeddings(request["rows"])
    say({"progress": {"step": "merging the adapter into the base, by PEFT"}})
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
    say({"progress": {"step": "writing the merged model"}})
    total = sum(parameter.numel() * parameter.element_size() for parameter in merged.parameters())
    with growth_reported(out, total):
        merged.save_pretrained(out, safe_serialization=True)


def loader(base: str) -> Any:
    """The class of transformers that this model is of, by its config.json."""
    transformers = importlib.import_module("transformers")
    architectures = json.loads((Path(base) / "config.json").read_bytes()).get("architectures") or [""]
    return getattr(transformers, architectures[0], transformers.AutoModelForCausalLM)


@contextlib.contextmanager
def growth_reported(out: Path, total: int) -> Iterator[None]:
    """While inside, tell again and again how large the folder's weights are."""
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(LOOK_S):
            with contextlib.suppress(OSError):
                done = sum(file.stat().st_size for file in out.glob("*.safetensors"))
                say({"progress": {"done": done, "total": max(total, 1)}})

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


def sentence(exc: BaseException) -> str:
    """What went wrong, as the rest of a sentence about the adapter."""
    text = " ".join(str(exc).split())
    if isinstance(exc, NotMerged):
        return text
    if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk became full"
    if isinstance(exc, MemoryError):
        return "there is not enough memory"
    if "trust_remote_code" in text or "custom code" in text:
        return "its base comes with code of its own, which is not run unless you trust it (--trust-remote-code)"
    if "size mismatch" in text:
        return f"its weights do not fit the base: {text[text.index('size mismatch') :][:300]}"
    return f"PEFT failed: {type(exc).__name__}: {text[:300]}"


def main() -> None:
    """Do what the request says."""
    request = json.load(sys.stdin)
    try:
        merge(request)
    except Exception as exc:  # noqa: BLE001 - whatever three libraries raise
        say({"error": sentence(exc)})
        return
    say({"result": None})


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # torch's threads take seconds to end
