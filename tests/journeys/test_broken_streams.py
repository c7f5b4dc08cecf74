"""openai-node in front of every broken stream that is known: one process reads them all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.fakes.shapes import SHAPES
from tests.journeys.gateway import Gateway
from tests.journeys.javascript import HERE, NODE, printed


def test_openai_node_has_the_right_text_or_an_error_of_each(gateway: Gateway, node: Path, tmp_path: Path) -> None:
    shutil.copy(HERE / "shapes.mjs", node)
    wanted = tmp_path / "shapes.json"
    wanted.write_text(
        json.dumps(
            [
                {
                    "name": name,
                    "text": shape.text,
                    "thinking": shape.thinking,
                    "calls": [[call["name"], json.loads(call["arguments"])] for call in shape.calls],
                    "is_error": shape.is_error,
                }
                for name, shape in SHAPES.items()
            ]
        )
    )

    assert printed([NODE, "shapes.mjs", gateway.base_url, wanted], node) == "done\n"
