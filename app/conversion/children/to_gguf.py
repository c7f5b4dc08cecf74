"""A folder in Hugging Face layout becomes a GGUF file, by llama.cpp's own converter (`convert-hf-to-gguf`).

Request: `source` (a folder that holds nothing else than the model: this script looks for no pickles), `out`, `outtype`,
`name`, `chat_template` (None: the tokenizer's own), `stops` (texts of tokens) and `stop_ids` at which an answer ends,
`adds_bos` (whether an engine puts the first token before each text; None: as the tokenizer says),
`metadata` (texts by key, written into the file), `trust_remote_code`. Result: `left`, the stops that no token is for.

With `list` only: the result is the names of all architectures that it knows.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.conversion.children import answering
else:
    sys.path.append(str(Path(__file__).parent))
    answering = importlib.import_module("answering")

# Tokens at which llama.cpp ends an answer by their text, whatever the file says of them.
ENDS = frozenset(
    (
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "<|end_of_text|>",
        "<end_of_utterance>",
    )
)


class NotConverted(Exception):
    """Why there is no file: one sentence."""


def convert(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write the file. Raises NotConverted."""
    decide_on_remote_code(bool(request["trust_remote_code"]))
    answering.say({"progress": {"step": "reading the model"}})
    torch: Any = importlib.import_module("torch")
    torch.load = no_pickles
    gguf = importlib.import_module("gguf")
    conversion = importlib.import_module("conversion")
    quiet_card(gguf)
    source = Path(request["source"])
    types = {
        "f32": gguf.LlamaFileType.ALL_F32,
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "bf16": gguf.LlamaFileType.MOSTLY_BF16,
        "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    }
    with torch.inference_mode():
        config = conversion.ModelBase.load_hparams(source, False)
        architecture = conversion.get_model_architecture(config, conversion.ModelType.TEXT)
        try:
            model_class = conversion.get_model_class(architecture)
        except NotImplementedError as exc:
            raise NotConverted(f"llama.cpp's converter does not know the architecture {architecture}") from exc
        model = model_class(source, types[request["outtype"]], Path(request["out"]), model_name=request["name"])
        model.prepare_tensors()
        model.prepare_metadata(vocab_only=False)
        writer = model.gguf_writer
        left = complete(writer, request)
        total = sum(tensor.nbytes for tensors in writer.tensors for tensor in tensors.values())
        answering.say({"progress": {"step": "writing the GGUF file"}})
        with answering.growth_reported(lambda: Path(request["out"]).stat().st_size, total):
            writer.write_header_to_file(path=model.fname_out)
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file(progress=False)
            writer.close()
    return {"left": left}


def complete(writer: Any, request: Mapping[str, Any]) -> list[str]:
    """Put template, stops and the rest of the metadata into what will be written; the stops that no token is for."""
    pairs = writer.kv_data[0]
    if request["chat_template"] is not None:
        for key in [key for key in pairs if key.startswith("tokenizer.chat_template")]:
            del pairs[key]
        writer.add_chat_template(request["chat_template"])
    if request["adds_bos"] is not None:
        pairs.pop("tokenizer.ggml.add_bos_token", None)
        writer.add_add_bos_token(request["adds_bos"])
    for key, text in request["metadata"].items():
        writer.add_string(key, text)
    tokens = pairs["tokenizer.ggml.tokens"].value if "tokenizer.ggml.tokens" in pairs else []
    places = {as_text(token): number for number, token in enumerate(tokens)}
    end = pairs.get("tokenizer.ggml.eos_token_id")
    end_id = end.value if end is not None else None
    ids = [each for each in request["stop_ids"] if 0 <= each < len(tokens)]
    ids += [places[text] for text in request["stops"] if text in places]
    left = [text for text in request["stops"] if text not in places]
    others = [each for each in dict.fromkeys(ids) if each != end_id]
    if end_id is None and others:
        writer.add_eos_token_id(others.pop(0))
    unknown = [each for each in others if as_text(tokens[each]) not in ENDS]
    for add, each in zip((writer.add_eot_token_id, writer.add_eom_token_id), unknown, strict=False):
        add(each)
    return left + [as_text(tokens[each]) for each in unknown[2:]]


def as_text(token: Any) -> str:
    """A token of the vocabulary as text."""
    return token.decode(errors="replace") if isinstance(token, bytes | bytearray) else str(token)


def decide_on_remote_code(is_trusted: bool) -> None:
    """The converter asks for some tokenizers with their own code and for others without; we decide for all."""
    transformers = importlib.import_module("transformers")
    for name in ("AutoConfig", "AutoTokenizer", "AutoProcessor", "AutoModel", "AutoModelForCausalLM"):
        owner = getattr(transformers, name)
        owner.from_pretrained = decided(owner.from_pretrained, is_trusted)


def decided(load: Any, is_trusted: bool) -> Any:
    """The same loader, which runs the model's own code only where that is trusted, whatever it is asked."""

    def loader(*args: Any, **kwargs: Any) -> Any:
        return load(*args, **{**kwargs, "trust_remote_code": is_trusted})

    return staticmethod(loader)


def no_pickles(*_: object, **__: object) -> Any:
    """In place of torch.load."""
    raise NotConverted("it wants to load a pickle, which would run the code in it")


def quiet_card(gguf: Any) -> None:
    """A model card whose head is not YAML stops no conversion: it is left out."""
    load = gguf.Metadata.load_model_card
    # The last three: what the YAML library lets through of a wrong date, bytes that are no text, an odd tag, depth.
    wrong = (importlib.import_module("yaml").YAMLError, ValueError, LookupError, RecursionError)

    def loader(*args: Any, **kwargs: Any) -> Any:
        try:
            return load(*args, **kwargs)
        except wrong:
            return {}

    gguf.Metadata.load_model_card = staticmethod(loader)


def sentence(exc: BaseException) -> str:
    """What went wrong in the converter, as the rest of a sentence about the model."""
    text = " ".join(str(exc).split())
    if isinstance(exc, NotConverted):
        return text
    if "trust_remote_code" in text or "custom code" in text:
        return "its tokenizer comes with code of its own, which is not run unless you trust it (--trust-remote-code)"
    if "pre-tokenizer was not recognized" in text:
        return "llama.cpp's converter does not know how its tokenizer splits texts"
    if tensor := re.search(r"Can ?not map tensor '([^']+)'", text):
        return f"its tensor '{tensor[1]}' does not belong to its architecture"
    if isinstance(exc, KeyError | FileNotFoundError | ModuleNotFoundError | ImportError | ValueError):
        return f"llama.cpp's converter cannot read it: {text[:300]}"
    return f"llama.cpp's converter failed: {type(exc).__name__}: {text[:300]}"


def work(request: Mapping[str, Any]) -> Any:
    """Do what the request says."""
    logging.basicConfig(level=logging.WARNING)
    if request.get("list"):
        return sorted(importlib.import_module("conversion").TEXT_MODEL_MAP)
    return convert(request)


if __name__ == "__main__":
    answering.answer(work, sentence)
