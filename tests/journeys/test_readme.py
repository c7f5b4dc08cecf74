"""The examples of the README, and of the page on comparisons, do what they show, word for word but for the port."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.journeys.gateway import Gateway
from tests.journeys.javascript import NODE, printed
from tests.rigs.pages import page

README = page("README.md")


def adapted(block: str, gateway: Gateway) -> str:
    """The example for a gateway that is elsewhere."""
    assert "http://127.0.0.1:8000" in block
    return block.replace("http://127.0.0.1:8000", gateway.url)


def test_the_curl_example_answers(gateway: Gateway) -> None:
    (line,) = [block for block in README.blocks("bash") if block.startswith("curl")]

    answer = subprocess.run(["sh", "-c", adapted(line, gateway)], capture_output=True, text=True, timeout=60)

    assert json.loads(answer.stdout)["choices"][0]["message"]["content"]


def test_the_curl_example_of_a_comparison_answers(gateway: Gateway) -> None:
    (line,) = [block for block in page("docs/compare.md").blocks("bash") if block.startswith("curl")]

    answer = subprocess.run(["sh", "-c", adapted(line, gateway)], capture_output=True, text=True, timeout=60)

    events = [json.loads(line.removeprefix("data: ")) for line in answer.stdout.splitlines() if line[:6] == "data: "]
    assert events[0]["models"] == ["base", "security"]
    assert {event["index"] for event in events if event.get("delta", {}).get("content")} == {0, 1}
    assert (events[-1]["answered"], events[-1]["failed"]) == (2, 0)


def test_the_python_example_answers(gateway: Gateway, tmp_path: Path) -> None:
    (example,) = README.blocks("python")

    assert printed([sys.executable, "-c", adapted(example, gateway)], tmp_path).strip()


def test_the_javascript_example_answers(gateway: Gateway, node: Path) -> None:
    (example,) = README.blocks("javascript")
    script = node / "readme.mjs"
    script.write_text(adapted(example, gateway))

    assert printed([NODE, script], node).strip()
