"""Which tensor gets which type in a quantised GGUF file: llama.cpp's rules (`llama_tensor_get_type`), for the types
that need no importance matrix. Pure; a script beside it reads it from its own folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

FILE_TYPES = {
    "q4_0": (2, "Q4_0"),
    "q4_1": (3, "Q4_1"),
    "q8_0": (7, "Q8_0"),
    "q5_0": (8, "Q5_0"),
    "q5_1": (9, "Q5_1"),
    "q2_k": (10, "Q2_K"),
    "q3_k_s": (11, "Q3_K"),
    "q3_k_m": (12, "Q3_K"),
    "q3_k_l": (13, "Q3_K"),
    "q4_k_s": (14, "Q4_K"),
    "q4_k_m": (15, "Q4_K"),
    "q5_k_s": (16, "Q5_K"),
    "q5_k_m": (17, "Q5_K"),
    "q6_k": (18, "Q6_K"),
    "iq4_nl": (25, "IQ4_NL"),
    "iq4_xs": (30, "IQ4_XS"),
}
# Where a row cannot be divided into the blocks of the type.
NARROWER = {
    "Q2_K": "IQ4_NL",
    "Q3_K": "IQ4_NL",
    "IQ4_XS": "IQ4_NL",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
BLOCKS = {"Q2_K": 256, "Q3_K": 256, "Q4_K": 256, "Q5_K": 256, "Q6_K": 256, "IQ4_XS": 256}
# Parts of the names of matrices that stay as they are: small ones on which much depends.
KEPT = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "position_embd.weight",
    "token_types.weight",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "time_mix_",
    "attn_rel_b.weight",
    "cls.",
)


@dataclass
class TensorTypes:
    """What the rules ask of a model. `heads_per_group`: heads of attention for one of keys and values; `layers`: how
    many blocks; `values`: how many of them have a matrix of values; `experts`: 0 where there are none.
    """

    outtype: str
    architecture: str
    layers: int
    values: int
    heads_per_group: int
    experts: int
    has_output: bool
    is_huge: bool = False  # 70 billion parameters, with 8 heads for one of keys and values
    _seen: dict[str, int] = field(default_factory=dict)

    def type_of(self, name: str, shape: tuple[int, ...]) -> str | None:
        """The type of the tensor of this name, whose rows have `shape[0]` numbers; None: it is kept as it is.

        To be asked for all tensors in the order of the blocks, as the rules count.
        """
        if not name.endswith("weight") or sum(length > 1 for length in shape) < 2:
            return None
        if any(part in name for part in KEPT):
            return None
        return fitting(self._wanted(name, shape), shape[0])

    def _wanted(self, name: str, shape: tuple[int, ...]) -> str:
        kind, plain = self.outtype, FILE_TYPES[self.outtype][1]
        if name == "output.weight" or (name == "token_embd.weight" and not self.has_output):
            if self.architecture == "falcon" or shape[0] % BLOCKS.get(plain, 32):
                return "Q8_0"
            return plain if plain == "Q8_0" else "Q6_K"
        if "attn_v.weight" in name:
            return self._values(kind, plain, self._count("values"))
        if "attn_k.weight" in name and self.experts == 8:
            return "Q8_0"
        if "ffn_down" in name:
            place = self._count("ffn_down")
            layer = re.match(r"blk\.(\d+)\.", name)
            return self._down(kind, plain, int(layer[1]) if layer is not None and self.experts > 1 else place)
        if "attn_output.weight" in name:
            return self._attention_output(kind, plain)
        if "attn_qkv.weight" in name:
            more = {"q3_k_m": "Q4_K", "q3_k_l": "Q4_K", "q4_k_m": "Q5_K", "q5_k_m": "Q6_K"}
            return more.get(kind, plain)
        return plain

    def _count(self, what: str) -> int:
        place = self._seen.get(what, 0)
        self._seen[what] = place + 1
        return place

    def _values(self, kind: str, plain: str, place: int) -> str:
        chosen = plain
        if kind == "q2_k":
            chosen = "Q4_K" if self.heads_per_group >= 4 else "Q3_K"
        elif kind == "q3_k_m":
            chosen = "Q5_K" if place < 2 else "Q4_K"
        elif kind == "q3_k_l" or (kind in ("iq4_nl", "iq4_xs") and self.heads_per_group >= 4):
            chosen = "Q5_K"
        elif kind in ("q4_k_m", "q5_k_m") and deserves_more(place, self.values):
            chosen = "Q6_K"
        elif kind == "q4_k_s" and place < 4:
            chosen = "Q5_K"
        if self.is_huge and chosen in ("Q3_K", "Q4_K"):
            chosen = "Q5_K"
        return "Q8_0" if self.experts == 8 else chosen

    def _down(self, kind: str, plain: str, layer: int) -> str:
        is_falcon = self.architecture == "falcon"
        more = deserves_more(layer, self.layers)
        is_early, is_first = layer < self.layers // 8, layer < self.layers // 16
        match kind:
            case "q2_k":
                return "Q3_K"
            case "q3_k_m":
                return "Q5_K" if is_first else "Q4_K" if not is_falcon or more else "Q3_K"
            case "q3_k_l":
                return "Q4_K" if is_falcon else "Q5_K"
            case "q4_k_m" if is_falcon:
                return "Q6_K" if is_first else "Q5_K" if more else "Q4_K"
            case "q4_k_m" | "q5_k_m":
                return "Q6_K" if more else plain
            case "iq4_nl" | "iq4_xs":
                return "Q5_K" if is_early else plain
            case "q4_k_s":
                return "Q5_K" if is_early and not is_falcon else plain
        return plain

    def _attention_output(self, kind: str, plain: str) -> str:
        if self.architecture == "falcon":
            return "Q4_K" if kind == "q3_k_l" else plain
        if self.experts == 8:
            small = ("q2_k", "q3_k_s", "q3_k_m", "iq4_nl", "iq4_xs", "q4_k_s", "q4_k_m")
            return "Q5_K" if kind in small else plain
        return {"q2_k": "Q3_K", "q3_k_m": "Q4_K", "q3_k_l": "Q5_K"}.get(kind, plain)


def deserves_more(place: int, of: int) -> bool:
    """Whether this one of the blocks keeps more bits: the first and last eighth, and every third between."""
    return place < of // 8 or place >= 7 * of // 8 or (place - of // 8) % 3 == 2


def fitting(wanted: str, row: int) -> str:
    """The type for rows of this many numbers: the wanted one, a narrower one, or 16 bits."""
    if row % BLOCKS.get(wanted, 32) == 0:
        return wanted
    narrower = NARROWER.get(wanted, wanted)
    return narrower if row % 32 == 0 else "F16"


def place_in_order(name: str) -> tuple[int, str]:
    """By what tensors are sorted so that blocks come in order."""
    layer = re.match(r"blk\.(\d+)\.", name)
    return (int(layer[1]) if layer is not None else -1, name)
